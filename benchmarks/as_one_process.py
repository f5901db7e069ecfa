"""Several processes train as one does with the same global batch: how far apart they are at the end.

Two and four processes (gloo, on the CPU), each with the whole weights or, FSDP2, with a part of them, against one
process: digits, Rollout (fresh, and as persistent chains), ReflexFlow, gradient accumulation, averaged weights, AdamW.
All of it in float64, for sums in another order are no longer alike in float32, and AdamW makes much of little.

At most one millionth, the unit of all figures: the largest difference of a loss of the curve (which is kept in
float32), of a trained weight, of an averaged one, and of a chain's state at the end.

    python benchmarks/as_one_process.py [--steps 60]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from comfyui_rollout.data.data import Digits, next_batch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.files.weights import read_weights
from comfyui_rollout.models.families import UNet
from comfyui_rollout.nodes.rollouts.loss import ReflexFlowLoss
from comfyui_rollout.nodes.rollouts.rollout import Rollout
from comfyui_rollout.nodes.rollouts.schedule import NoisyBatch
from comfyui_rollout.runs.fit import fit
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import Stream
from report import conclude, table

GLOBAL = 8
"""Items of the global batch."""
ROLLOUT: dict[str, Any] = {
    "max_step_offset": 4, "probability": 0.5, "sampler": "unipc", "order": 2, "step_size": 20.0, "strategy": "uniform",
    "start_step": 0, "ramp_steps": 0, "prob_start": 0.0, "prob_end": 0.0, "ramp_shape": "linear",
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {"fresh": {}, "persistent": {"rollout": "persistent"}}
REFLEXFLOW: dict[str, Any] = {
    "reflexflow": "enable", "alpha": 1.0, "beta1": 1.0, "beta2": 1.0, "objective": "spec", "target": "clean",
}  # fmt: skip
FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "ResnetBlock2D", "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false", "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}  # fmt: skip
"""What ``accelerate launch`` sets for FSDP2; on a CPU torch's own launcher starts the processes."""
PARTS = {"weights": "weights.", "averaged": "averaged.", "chains": "kept."}


def train(kind: str, size: int, steps: int, folder: Path) -> None:
    """Leave a run's folder, from one of several processes, or from the only one; ``size`` items are its own."""
    with global_seed(0):
        live = UNet.create(channels=1, size=8, classes=10, width=16, depth=1)
    live.network.double()
    digits = Digits()
    digits.latents = digits.latents.double()
    data = Stream(next_batch, {"dataset": digits, "batch_size": size}, "1", "Digits", about=digits.info)
    about = type("About", (), {"classes": 10, "null_class": False, "pretrained": None})()
    model = Stream(lambda step: live, {}, "4", "Model", about=about)
    noisy = NoisyBatch().build(unique_id="5", dataset=data, schedule=FlowMatching())[0]
    options = {**ROLLOUT, **KINDS[kind]}
    rolled = Rollout().build(unique_id="6", batch=noisy, model=model, **options)["result"][0]
    loss = ReflexFlowLoss().build(unique_id="7", batch=rolled, model=model, **REFLEXFLOW)["result"][0]
    settings = OptimizerSettings("adamw", learning_rate=2e-3)
    fit(loss, model, settings, steps=steps, folder=folder, device="cpu", accumulation=2, ema_decay=0.9)


def started(count: int, in_parts: bool, steps: int, place: Path) -> None:
    """Train all kinds by so many processes, in programs of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    own = ["--worker", str(place), "--steps", str(steps), "--size", str(GLOBAL // count)]
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), *own]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **(FSDP if in_parts else {})}
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if said.returncode:
        raise SystemExit(said.stderr)


def furthest(place: Path, alone: Path) -> dict[str, float]:
    """How far a run is from that of one process, at most, in millionths: its losses, and what its state has."""
    losses = [[row["loss"] for row in read_metrics(folder)] for folder in (place, alone)]
    state, expected = (read_weights(find_state(folder).path) for folder in (place, alone))
    if state.keys() != expected.keys():
        raise SystemExit(f"{place}: its state holds something else")
    found = {"losses": max(abs(one - other) for one, other in zip(*losses, strict=True))}
    for part, start in PARTS.items():
        pairs = [(state[name], value) for name, value in expected.items() if name.startswith(start)]
        found[part] = max((float((one - other).double().abs().max()) for one, other in pairs), default=0.0)
    return {name: 1e6 * value for name, value in found.items()}


def compared(steps: int, place: Path) -> tuple[list[list[object]], dict[str, float]]:
    """Rows for people, and the figures."""
    rows: list[list[object]] = []
    figures = {}
    started(1, False, steps, place / "alone")
    for count, in_parts in ((2, False), (4, False), (2, True), (4, True)):
        name = f"{count}_in_parts" if in_parts else f"{count}_whole"
        started(count, in_parts, steps, place / name)
        for kind in KINDS:
            apart = furthest(place / name / f"{kind}_00001", place / "alone" / f"{kind}_00001")
            rows.append([count, "in parts (FSDP2)" if in_parts else "whole", kind, *apart.values()])
            figures[f"{name}_{kind}"] = max(apart.values())
    return rows, figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.worker:
        torch.set_default_dtype(torch.float64)
        for kind in KINDS:
            train(kind, options.size, options.steps, options.worker / kind)
        return 0
    with tempfile.TemporaryDirectory(prefix="rollout-as-one-") as name:
        rows, figures = compared(options.steps, Path(name))
    columns = ["processes", "weights", "rollouts", "millionths apart: losses", *PARTS]
    table(columns, rows)
    return conclude(figures, dict.fromkeys(figures, 1.0), {})


if __name__ == "__main__":
    sys.exit(main())

"""What states by the clock cost a training: how long it waits for each, and how much slower it is while one is written.

A network of ``--million`` weights is trained on the CPU with AdamW and averaged weights, so that a state has four times
its size. Steps are timed without states and with one written all the time, on the same data. The bound is on the share
of time at the default clock, where the next state comes after three minutes, or a hundred times what the last one cost.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import torch
from comfyui_rollout.models.model import Model
from comfyui_rollout.runs import checkpoint
from comfyui_rollout.runs.fit import fit
from comfyui_rollout.runs.looks import Checkpoint
from comfyui_rollout.runs.session import Look, Session
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Stream
from report import conclude, table
from torch import nn

WARM_UP = 3


class Network(nn.Sequential):
    def save_config(self, folder: str) -> None:
        (Path(folder) / "config.json").write_text("{}")


class Plain(Model):
    def __call__(self, x: torch.Tensor, timestep: torch.Tensor, conditioning: object) -> torch.Tensor:
        return self.network(x)


class Steps(Look):
    """When each step was over."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def after(self, session: Session) -> None:
        self.times.append(time.perf_counter())


class Always(Checkpoint):
    """A state by the clock after each step after the first few, as soon as the one before is written."""

    states = 0

    def _time_is_up(self) -> bool:
        return self.kept_at is None or self.writing is None or self.writing.done()

    def keep_state_aside(self, session: Session) -> None:
        if session.reached >= WARM_UP:
            self.states += 1
            super().keep_state_aside(session)


def trained(folder: Path, width: int, steps: int, look: Checkpoint) -> float:
    """Seconds that the steps after the first few took."""
    torch.manual_seed(0)
    network = Network(*[nn.Linear(width, width) for _ in range(4)])
    model = Stream(lambda step: step.keep(lambda: Plain(network)), node_id="model", title="Model")

    def loss(step: object, model: Plain) -> torch.Tensor:
        return model.network(torch.ones(64, width)).square().mean(1)

    times, settings = Steps(), OptimizerSettings("adamw", learning_rate=1e-4)
    options = {"steps": steps, "folder": folder, "device": "cpu", "ema_decay": 0.99, "looks": [times, look]}
    fit(Stream(loss, {"model": model}, "loss", "Loss"), model, settings, **options)
    return times.times[-1] - times.times[WARM_UP - 1]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--million", type=float, default=8.0, help="weights of the network")
    options.add_argument("--steps", type=int, default=25)
    chosen = options.parse_args()
    logging.disable(logging.WARNING)
    width = int((chosen.million * 1e6 / 4) ** 0.5)
    with tempfile.TemporaryDirectory(prefix="saving-") as place:
        never, always = Checkpoint(minutes=1e9), Always()
        without = trained(Path(place) / "never", width, chosen.steps, never)
        with_states = trained(Path(place) / "always", width, chosen.steps, always)
    waited = (always.blocked - always.costs) / max(1, always.states)  # the last one is that of the end
    whole = max(waited, (with_states - without) / max(1, always.states))
    clock = max(60 * Checkpoint.minutes, checkpoint.SHARE * (waited + always.beside))
    size = 4 * 4 * chosen.million
    per_step = 1000 * whole / clock * without / (chosen.steps - WARM_UP)
    rows = [
        ("state", f"{size:.0f} MB"),
        ("states written", always.states),
        ("the training waits for one", f"{waited:.3f} s"),
        ("all that one costs it", f"{whole:.3f} s"),
        ("share of time by the default clock", f"{whole / clock:.3%}"),
        ("ms a step", f"{per_step:.3f} of {1000 * without / (chosen.steps - WARM_UP):.1f}"),
    ]
    table(("what", "measured"), rows)
    figures = {"share of time": whole / clock, "seconds waited": waited, "seconds in all": whole, "megabytes": size}
    return conclude(figures, {"share of time": 0.01}, {})


if __name__ == "__main__":
    sys.exit(main())

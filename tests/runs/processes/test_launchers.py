"""The launchers themselves, on a CPU, as a person types them: what they start trains as one process does."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from comfyui_rollout.files.lock import is_held
from comfyui_rollout.files.weights import read_weights
from comfyui_rollout.runs.processes.launched import configuration
from comfyui_rollout.runs.run_folder import facts_in

ROOT = Path(__file__).parents[3]
WORKFLOW = ROOT / "workflows" / "quickstart_digits.json"
FSDP = ROOT / "docs" / "examples" / "fsdp.yaml"
WEIGHTS = "model/diffusion_pytorch_model.safetensors"
WATCHDOG = 180
"""Seconds after which processes wait for ever."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are asked for their environment")


def torchrun(count):
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]


def accelerate(*options):
    return [sys.executable, "-m", "accelerate.commands.launch", *map(str, options)]


def arguments(output, size, **changed):
    """Of the quickstart, small: ``size`` items in each process."""
    settings = {
        "Digits Dataset.batch_size": size, "New Model.width": 8, "New Model.depth": 1, "Rollout.ramp_steps": 0,
        "Rollout.probability": 0.6, "Optimizer Step.sample_every": 0, "Optimizer Step.steps": 3,
        "Optimizer.optimizer": "sgd", "Optimizer.learning_rate": 0.05, "Optimizer.warmup_steps": 0, **changed,
    }  # fmt: skip
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    run = ["-m", "comfyui_rollout", "run", str(WORKFLOW), "--device", "cpu", "--output", str(output), "--no-wait"]
    return [*run, *changes]


@contextmanager
def started(command):
    """A launcher, whose processes are all gone afterwards."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                    each.kill()


def trained(command, output):
    """The weights that a launch has left, and its facts."""
    with started(command) as process:
        said, _ = process.communicate(timeout=WATCHDOG)
    assert process.returncode == 0, said
    folder = output / "rollout" / "quickstart_digits_00001"
    return read_weights(folder / WEIGHTS), facts_in(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights that one process leaves with the whole global batch."""
    output = tmp_path_factory.mktemp("alone")
    return trained([sys.executable, *arguments(output, 8)], output)[0]


@pytest.mark.parametrize("kind", ["torchrun", "the editor's accelerate", "accelerate with FSDP"])
def test_a_launch_trains_as_one_process(tmp_path, alone, kind):
    """Weights of one process with the same global batch, in float32; a folder that says how many there were."""
    (tmp_path / "accelerate.json").write_text(json.dumps(configuration(2)))
    launcher = {
        "torchrun": torchrun(2),
        "the editor's accelerate": accelerate("--config_file", tmp_path / "accelerate.json"),
        "accelerate with FSDP": accelerate(
            "--config_file", FSDP, "--num_processes", 2, "--fsdp_transformer_layer_cls_to_wrap", "ResnetBlock2D"
        ),
    }[kind]
    weights, facts = trained([*launcher, *arguments(tmp_path, 4)], tmp_path)
    assert (facts["status"], facts["processes"]) == ("finished", 2)
    assert weights.keys() == alone.keys()
    logs = [
        (tmp_path / "rollout" / "quickstart_digits_00001" / "logs" / f"process_{n}.log").read_text() for n in (0, 1)
    ]
    assert all(f"INFO process {number} of 2, on " in said for number, said in enumerate(logs))
    for name, value in alone.items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=1e-4)


def test_one_process_under_accelerate_has_the_same_bits(tmp_path, alone):
    """Its launcher changes nothing, where one process is all that it starts."""
    weights, facts = trained([*accelerate("--cpu", "--num_processes", 1), *arguments(tmp_path, 8)], tmp_path)
    assert facts["status"] == "finished"
    assert weights.keys() == alone.keys()
    assert all(weights[name].equal(value) for name, value in alone.items())


def process_of(rank, launcher):
    """The process of that rank, which a launcher has started."""
    children = psutil.Process(launcher.pid).children()
    return next(child for child in children if child.environ().get("RANK") == str(rank))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_launch_with_its_name(tmp_path, rank):
    """kill -9 amid the training: all end within seconds, and the run says who was killed, whoever writes it."""
    folder = tmp_path / "rollout" / "quickstart_digits_00001"
    command = [*torchrun(2), *arguments(tmp_path, 4, **{"Optimizer Step.steps": 100_000})]
    with started(command) as process:
        until = time.monotonic() + WATCHDOG
        while not (folder / "metrics.jsonl").is_file() and time.monotonic() < until:
            time.sleep(0.2)
        process_of(rank, process).kill()
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert facts_in(folder)["status"] == "failed"
    assert facts_in(folder)["message"].startswith(f"process {rank} ended without a word")
    assert not is_held(folder)

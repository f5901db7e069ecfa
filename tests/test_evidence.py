"""What the evidence bench is told of the machine reaches the trainings that it starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[1] / "benchmarks" / "evidence"
TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
import run
run.RUNS, budget = Path(sys.argv[1]), {"short": 10}
run.DATA["digits_dit"] = replace(run.DATA["digits_dit"], budgets=budget)
print(run.trained(run.PLAIN, "digits_dit", 0, "short", run.Machine(*sys.argv[2:])))
"""


def trained(place, *machine):
    """A process of its own: the bench's modules have names such as ``run`` and ``judge``."""
    command = [sys.executable, "-c", TRAIN, str(place), *machine]
    return subprocess.run(command, cwd=BENCH, capture_output=True, text=True, timeout=300)


def test_device_and_precision_reach_the_run_and_its_place(tmp_path):
    """Otherwise numbers of another machine would stand among those of a CPU in float32."""
    done = trained(tmp_path, "cpu", "bf16")
    assert done.returncode == 0, done.stderr
    place = tmp_path / "digits_dit_cpu_bf16_short_0"
    assert done.stdout.strip() == str(place / "teacher_forcing")
    run, prompt = (json.loads((place / "state" / f"{name}.json").read_text()) for name in ("run", "prompt"))
    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert run["device"] == "cpu"
    assert inputs["RolloutOptimizerStep"]["precision"] == "bf16"
    assert inputs["RolloutNewModel"]["family"] == "dit"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(tmp_path):
    done = trained(tmp_path, "cuda", "bf16")
    assert done.returncode != 0
    assert "device 'cuda' is not available here" in done.stderr

"""What the machine tells while it trains: without waiting, and nothing where the system does not tell."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.hosts import machine as machines
from comfyui_rollout.hosts.machine import MIB, Machine, answered, memory_of_this_program

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """gpu(script): a GPU whose driver's program is that shell script."""

    def gpu(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * MIB)
        monkeypatch.setattr(machines, "ASK_GPU_EVERY", 0.0)
        return Machine(CUDA)

    return gpu


def settled(machine):
    """Its reading once the driver has answered."""
    end = time.monotonic() + 20
    machine.read()
    while machine._asked.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    return machine.read()


def test_the_memory_of_this_program():
    """As the system's own tools tell it; on the CPU there is nothing else."""
    told = Machine(torch.device("cpu")).read()
    assert set(told) == {"memory"}
    psutil = pytest.importorskip("psutil")
    assert memory_of_this_program() == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert told["memory"] == pytest.approx(memory_of_this_program() / MIB, rel=0.2)


def test_the_load_and_heat_of_the_gpu(gpu):
    """Of the very GPU that trains, as it is known to the driver."""
    machine = gpu('echo "$@" > "$(dirname "$0")/asked"; echo "37, 61"')
    told = settled(machine)
    assert {name: told[name] for name in told.keys() - {"memory"}} == {
        "gpu_memory": 3.0, "gpu_use": 37.0, "gpu_temperature": 61.0,
    }  # fmt: skip
    machine.close()
    assert "--id=GPU-1-2" in (Path(machine._command[0]).parent / "asked").read_text()


def test_a_driver_that_does_not_answer_holds_nothing_up(gpu):
    """A reading returns at once, and no process is left in the end."""
    machine = gpu("exec sleep 60")
    machine.read()
    process = machine._asked
    assert process.poll() is None
    assert "gpu_use" not in machine.read()
    assert machine._asked is process
    machine.close()
    assert process.poll() is not None


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense", "echo '[N/A], [N/A]'", ""])
def test_a_driver_that_knows_nothing_is_nothing(gpu, script):
    """No curve, no message: training goes on."""
    machine = gpu(script)
    assert set(settled(machine)) <= {"memory", "gpu_memory"}
    machine.close()


def test_what_the_driver_answers():
    """A part of a GPU has no load of its own, but a temperature."""
    assert answered("[N/A], 61\n") == {"gpu_temperature": 61.0}
    assert answered("0, 30") == {"gpu_use": 0.0, "gpu_temperature": 30.0}
    assert answered("") == {}

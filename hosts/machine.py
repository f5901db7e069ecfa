"""What the machine tells of itself while it trains: memory, and how busy and how warm the GPU is."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping

import torch

ASK_GPU_EVERY = 5.0
"""Seconds between two questions to the driver's program, which takes a tenth of a second to start."""
MIB = 1024**2


class Machine:
    """Reads the memory of this program and of its GPU, and the GPU's load and temperature where the system tells.

    Nothing waits: not for the device, and not for ``nvidia-smi``, whose answer is fetched at a later reading. What the
    system does not tell is left out.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_cuda = device.type == "cuda"
        self.device = device
        self._asked: subprocess.Popen[str] | None = None
        self._asked_at = float("-inf")
        self._told: dict[str, float] = {}
        self._command = question(device) if self.is_cuda else None

    def read(self) -> dict[str, float]:
        """``memory`` and ``gpu_memory`` in MiB (2^20 bytes), ``gpu_use`` in percent, ``gpu_temperature`` in Celsius."""
        used = memory_of_this_program()
        told = {"memory": used / MIB} if used else {}
        if self.is_cuda:
            told["gpu_memory"] = torch.cuda.memory_reserved(self.device) / MIB
            told |= self._gpu()
        elif self.device.type == "mps":
            told["gpu_memory"] = torch.mps.driver_allocated_memory() / MIB
        return told

    def _gpu(self) -> Mapping[str, float]:
        """The newest answer of the driver; the next question is asked meanwhile."""
        if self._asked is not None and self._asked.poll() is not None:
            answer, _ = self._asked.communicate()
            self._told = answered(answer) if self._asked.returncode == 0 else {}
            self._asked = None
        now = time.monotonic()
        if self._command and self._asked is None and now - self._asked_at >= ASK_GPU_EVERY:
            self._asked_at = now
            try:
                self._asked = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            except OSError:  # it is there, and cannot be run: nothing to tell
                self._command = None
        return self._told

    def close(self) -> None:
        """Leave no process behind."""
        if self._asked is not None:
            self._asked.kill()
            self._asked.communicate()
            self._asked = None


def question(device: torch.device) -> list[str] | None:
    """The command that asks for this very GPU, whatever CUDA_VISIBLE_DEVICES calls it; None where there is none."""
    program = shutil.which("nvidia-smi")
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if program is None or uuid is None:
        return None
    asked = "--query-gpu=utilization.gpu,temperature.gpu"
    return [program, f"--id=GPU-{uuid}", asked, "--format=csv,noheader,nounits"]


def answered(line: str) -> dict[str, float]:
    """``37, 61`` as numbers; what the driver does not know (``[N/A]``, as of a part of a GPU) is left out."""
    told: dict[str, float] = {}
    for name, word in zip(("gpu_use", "gpu_temperature"), line.strip().split(","), strict=False):
        try:
            told[name] = float(word)
        except ValueError:
            continue
    return told


def memory_of_this_program() -> int:
    """Bytes of this program that are in memory now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import psutil  # comes with accelerate
    except ImportError:
        return 0
    return int(psutil.Process().memory_info().rss)

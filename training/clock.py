"""Seconds per node, measured without making the step wait for the device."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up time by name. On CUDA it records events and reads them when asked, after the device caught up."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = defaultdict(float)
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        if self.device.type == "cuda":
            stream = torch.cuda.current_stream(self.device)
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record(stream)
            yield
            end.record(stream)
            self.events.append((name, begin, end))
        else:
            begin_time = time.perf_counter()
            yield
            self.seconds[name] += time.perf_counter() - begin_time

    def read(self) -> dict[str, float]:
        """Seconds by name since the last reading; waits for the device."""
        for name, begin, end in self.events:
            end.synchronize()
            self.seconds[name] += begin.elapsed_time(end) / 1000
        self.events.clear()
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds

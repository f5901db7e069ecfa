"""How far a model's own sampling path is from what it was trained on: exposure bias, measured as distributions.

The difference "rolled-out minus teacher-forced" of one item is not exposure bias: a perfect model shows it too, since
one item's path is not straight. What must agree, if there were no bias, is the *distribution* of latents at each level.
So compare statistics over many samples: the variance, the power in bands of spatial frequency, and the size of the
network's output, at each level of a full sampling path against teacher-forced latents at the same level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .noisy_batch import noisy_batch
from .schedules import Schedule
from .solvers import Conditioning, Model, Solver, ask, from_noise

BANDS = 4


@dataclass(frozen=True)
class LevelStatistics:
    """Statistics at one level, by name, of sampled and of teacher-forced latents."""

    timestep: float
    sampled: dict[str, float]
    teacher_forced: dict[str, float]
    noise_floor: dict[str, float]
    """The same statistics of teacher-forced latents with other noise: two such measurements differ by chance alone."""

    def log_ratio(self, name: str) -> float:
        """``log(sampled / teacher-forced)``: 0 means no bias, 0.1 means 10% too much."""
        return math.log(self.sampled[name] / self.teacher_forced[name])

    def log_floor(self, name: str) -> float:
        """The same between two teacher-forced measurements: what is smaller than this says nothing."""
        return math.log(self.noise_floor[name] / self.teacher_forced[name])


def frequency_bands(height: int, width: int, count: int = BANDS) -> Tensor:
    """Masks (count, height, width // 2 + 1) of equally wide rings of spatial frequency, the lowest first."""
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    radius = (rows[:, None] ** 2 + columns[None] ** 2).sqrt() / math.sqrt(0.5)
    ring = (radius * count).floor().clamp(max=count - 1)
    return torch.stack([ring == number for number in range(count)])


def statistics(x: Tensor, output: Tensor) -> dict[str, float]:
    """Over a batch of latents x (B, C, H, W) and the network's output there; waits for the device.

    Raises ValueError where one of them is zero or not finite.
    """
    power = torch.fft.rfft2(x.float(), norm="ortho").abs().square().mean((0, 1))
    named = {"variance": x.float().var(), "output": output.float().square().mean().sqrt()}
    for number, mask in enumerate(frequency_bands(*x.shape[-2:]).to(x.device)):
        named[f"band_{number + 1}"] = power[mask].mean()
    found = {name: float(value) for name, value in named.items()}
    if not all(0 < value < math.inf for value in found.values()):
        raise ValueError("the model's samples are not finite numbers, or all the same: there is nothing to compare")
    return found


@torch.no_grad()
def measure(
    model: Model,
    schedule: Schedule,
    latents: Tensor,
    conditioning: Conditioning,
    solve: Solver,
    *,
    steps: int,
    generator: Generator,
) -> list[LevelStatistics]:
    """Sample as many images as there are real ones (B, C, H, W), and compare on the way, at each level but the last.

    The images are asked for with the conditioning of the real ones, so that the two distributions should be the same.
    """
    schedule = schedule.fitting(latents)
    grid = schedule.sampling_timesteps(steps)[:, None].expand(-1, len(latents))
    start, *noises = (torch.randn(latents.shape, generator=generator).to(latents.device) for _ in range(3))
    path: list[LevelStatistics] = []

    def at_level(x: Tensor, timestep: Tensor) -> dict[str, float]:
        return statistics(x, ask(model, x, timestep, conditioning))

    def compare(step: int, x: Tensor) -> None:
        if step < steps:
            forced = (noisy_batch(latents, noise, grid[step], schedule, conditioning).x for noise in noises)
            measured = [at_level(each, grid[step]) for each in (x, *forced)]
            path.append(LevelStatistics(float(grid[step, 0]), *measured))

    from_noise(model, schedule, start, steps, conditioning, solve, compare)
    return path


def summary(path: list[LevelStatistics]) -> dict[str, float]:
    """The mean size of the bias over the levels, by statistic, and of the noise floor (``_floor``)."""
    names = list(path[0].sampled)
    bias = {name: sum(abs(level.log_ratio(name)) for level in path) / len(path) for name in names}
    floor = {f"{name}_floor": sum(abs(level.log_floor(name)) for level in path) / len(path) for name in names}
    return bias | floor

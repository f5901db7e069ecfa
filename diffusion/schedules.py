"""Noise schedules: how much of the latents and how much noise there is at each timestep.

One interface for flow matching and DDPM. The coordinate is ``timestep``, what the network is told: 0..1000 for flow
matching (1000 * sigma), 0..999 for DDPM with -1 as the clean end. It is continuous, so that a solver may stop anywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Generator, Tensor

from .predictions import PredictionType, blend

NUM_TRAIN_TIMESTEPS = 1000

Density = Literal["uniform", "logit_normal", "mode", "beta"]
BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


class Schedule(ABC):
    """A noise schedule: ``x = alpha(timestep) * latents + sigma(timestep) * noise``."""

    prediction: PredictionType
    clean_timestep: float
    noisy_timestep: float

    @property
    def is_flow_matching(self) -> bool:
        """Whether the network predicts the velocity of a flow."""
        return self.prediction == "velocity"

    @abstractmethod
    def angle(self, timestep: Tensor) -> Tensor:
        """``atan2(sigma, alpha)`` in 0 (clean) .. pi/2 (noise), of the shape of ``timestep``, float64."""

    @abstractmethod
    def timestep_at(self, angle: Tensor) -> Tensor:
        """The inverse of :meth:`angle`."""

    @abstractmethod
    def coefficients(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha, sigma)``, each of the shape of ``timestep``, float64."""

    @abstractmethod
    def sample_timesteps(self, batch: int, generator: Generator) -> Tensor:
        """Training timesteps (batch,), float64 on the CPU."""

    @abstractmethod
    def density_at(self, timestep: Tensor) -> Tensor:
        """How often :meth:`sample_timesteps` draws about there, up to a constant factor; 0 where it never does."""

    @abstractmethod
    def sampling_timesteps(self, steps: int) -> Tensor:
        """The grid (steps + 1,) that a sampler walks from pure noise to the clean end, float64 on the CPU."""

    def at_size(self, tokens: int) -> Schedule:
        """The schedule for images of that many tokens (patches of 2x2 latents), where it depends on their size."""
        return self

    def fitting(self, latents: Tensor) -> Schedule:
        """The schedule for latents (B, C, H, W) of this size, where it depends on it."""
        return self.at_size(latents.shape[-2] * latents.shape[-1] // 4)

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Teacher-forced latents: ``alpha * latents + sigma * noise`` (B, ...) at ``timestep`` (B,)."""
        alpha, sigma = self.coefficients(timestep)
        return blend((alpha, latents), (sigma, noise))


@dataclass(frozen=True)
class FlowMatching(Schedule):
    """Rectified flow: ``x = (1 - sigma) * latents + sigma * noise``, ``timestep = 1000 * sigma``."""

    shift: float = 1.0
    """Moves levels towards noise: sigma' = shift * sigma / (1 + (shift - 1) * sigma) (arXiv 2403.03206, eq. 23)."""
    density: Density = "uniform"
    """How training levels are drawn, before the shift."""
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29
    beta_alpha: float = 1.0
    beta_beta: float = 1.0
    base_shift: float = 0.0
    """With ``max_shift``: the shift grows with the image, from exp(base_shift) at ``base_tokens`` to exp(max_shift) at
    ``max_tokens``, as FLUX.1 samples; 0 = no."""
    max_shift: float = 0.0
    base_tokens: int = 256
    max_tokens: int = 4096
    linear_shift: bool = False
    """Whether base_shift and max_shift are the shift itself, not its logarithm."""
    unshifted_tokens: int = 0
    """The shift grows as the square root of the image's tokens over these (arXiv 2403.03206, eq. 23); 0 = no."""
    terminal: float = 0.0
    """The last level above zero that a sampler visits, to which its grid is stretched (arXiv 2305.08891); 0 = not."""

    prediction: PredictionType = "velocity"
    clean_timestep: float = 0.0
    noisy_timestep: float = float(NUM_TRAIN_TIMESTEPS)

    def coefficients(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        sigma = timestep.double() / NUM_TRAIN_TIMESTEPS
        return 1 - sigma, sigma

    def at_size(self, tokens: int) -> FlowMatching:
        if self.unshifted_tokens:
            return replace(self, shift=self.shift * math.sqrt(tokens / self.unshifted_tokens), unshifted_tokens=0)
        if not self.max_shift:
            return self
        largeness = (tokens - self.base_tokens) / (self.max_tokens - self.base_tokens)
        shift = self.base_shift + largeness * (self.max_shift - self.base_shift)
        return replace(self, shift=shift if self.linear_shift else math.exp(shift), base_shift=0.0, max_shift=0.0)

    def angle(self, timestep: Tensor) -> Tensor:
        alpha, sigma = self.coefficients(timestep)
        return torch.atan2(sigma, alpha)

    def timestep_at(self, angle: Tensor) -> Tensor:
        sine, cosine = angle.sin(), angle.cos()
        return NUM_TRAIN_TIMESTEPS * sine / (sine + cosine)

    def shifted(self, sigma: Tensor) -> Tensor:
        """Levels 0..1 moved towards noise by ``shift``."""
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def sample_timesteps(self, batch: int, generator: Generator) -> Tensor:
        return NUM_TRAIN_TIMESTEPS * self.shifted(self._draw(batch, generator).double()).clamp(0, 1)

    def density_at(self, timestep: Tensor) -> Tensor:
        sigma = timestep.double() / NUM_TRAIN_TIMESTEPS
        stretch = self.shift - (self.shift - 1) * sigma
        unshifted = (sigma / stretch).clamp(0, 1)
        density = self._density(unshifted) * self.shift / stretch**2
        return torch.where((sigma >= 0) & (sigma <= 1), density, 0.0)

    def _density(self, u: Tensor) -> Tensor:
        """The density of :meth:`_draw` at u in 0..1, up to a constant factor."""
        if self.density == "logit_normal":
            inside = u.clamp(1e-12, 1 - 1e-12)
            return torch.exp(-(((inside.logit() - self.logit_mean) / self.logit_std) ** 2) / 2) / (
                inside * (1 - inside)
            )
        if self.density == "beta":
            inside = u.clamp(1e-6, 1 - 1e-6)  # at the very ends it may be infinite
            return inside ** (self.beta_alpha - 1) * (1 - inside) ** (self.beta_beta - 1)
        if self.density == "mode":
            # The draws are a falling function of uniform ones (arXiv 2403.03206, eq. 20): its slope, looked up.
            drawn = torch.linspace(0, 1, 4097, dtype=torch.float64)
            level = 1 - drawn - self.mode_scale * ((math.pi / 2 * drawn).cos() ** 2 - 1 + drawn)
            level = level.flip(0)
            place = torch.searchsorted(level, u.contiguous()).clamp(1, len(level) - 1)
            return 1 / (level[place] - level[place - 1])
        return torch.ones_like(u)

    def sampling_timesteps(self, steps: int) -> Tensor:
        sigma = self.shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
        if self.terminal and steps > 1:
            signal = 1 - sigma[:-1]
            sigma = torch.cat([1 - signal * (1 - self.terminal) / signal[-1], sigma[-1:]])
        return NUM_TRAIN_TIMESTEPS * sigma

    def _draw(self, batch: int, generator: Generator) -> Tensor:
        if self.density == "beta":
            # torch.distributions takes no generator: its global one is borrowed, seeded from ours, and put back.
            seed = int(torch.randint(2**62, (1,), generator=generator))
            with torch.random.fork_rng(devices=[]):
                torch.random.default_generator.manual_seed(seed)
                return torch.distributions.Beta(self.beta_alpha, self.beta_beta).sample((batch,))
        from diffusers.training_utils import compute_density_for_timestep_sampling

        return compute_density_for_timestep_sampling(
            self.density, batch, self.logit_mean, self.logit_std, self.mode_scale, generator=generator
        )


@dataclass(frozen=True)
class DDPM(Schedule):
    """Variance preserving: ``alpha**2 + sigma**2 = 1``, from diffusers' table of betas."""

    beta_schedule: BetaSchedule = "scaled_linear"
    prediction: PredictionType = "epsilon"
    zero_terminal_snr: bool = False
    """Rescale the betas so that the last timestep is pure noise (Lin et al., arXiv 2305.08891)."""
    beta_start: float = 0.00085
    beta_end: float = 0.012

    clean_timestep: float = -1.0
    noisy_timestep: float = float(NUM_TRAIN_TIMESTEPS - 1)

    def __post_init__(self) -> None:
        if self.prediction == "velocity":
            raise ValueError("a DDPM schedule predicts epsilon, v_prediction or sample; velocity is flow matching's")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "zero_terminal_snr needs v_prediction or sample: at pure noise, epsilon says nothing about the image"
            )

    @cached_property
    def angles(self) -> Tensor:
        """``atan2(sigma, alpha)`` at timesteps -1 .. 999 (1001,), float64."""
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler(
            num_train_timesteps=NUM_TRAIN_TIMESTEPS,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            beta_schedule=self.beta_schedule,
            rescale_betas_zero_snr=self.zero_terminal_snr,
        )
        signal: Tensor = scheduler.alphas_cumprod.double()  # type: ignore[attr-defined]
        return torch.cat([torch.zeros(1, dtype=torch.float64), torch.atan2((1 - signal).sqrt(), signal.sqrt())])

    def angle(self, timestep: Tensor) -> Tensor:
        """Between two table entries the angle goes linearly, which keeps the variance."""
        position = (timestep.double() + 1).clamp(0, NUM_TRAIN_TIMESTEPS)
        below = position.floor().clamp(max=NUM_TRAIN_TIMESTEPS - 1).long()
        return torch.lerp(self.angles[below], self.angles[below + 1], position - below)

    def timestep_at(self, angle: Tensor) -> Tensor:
        upper = torch.searchsorted(self.angles, angle.double().contiguous()).clamp(1, NUM_TRAIN_TIMESTEPS)
        low, high = self.angles[upper - 1], self.angles[upper]
        return (upper - 2) + (angle - low) / (high - low)

    def coefficients(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        angle = self.angle(timestep)
        # cos(pi/2) is 6e-17 in float64: pure noise is pure noise.
        return torch.where(angle >= math.pi / 2 - 1e-12, 0.0, angle.cos()), angle.sin()

    def sample_timesteps(self, batch: int, generator: Generator) -> Tensor:
        return torch.randint(NUM_TRAIN_TIMESTEPS, (batch,), generator=generator).double()

    def density_at(self, timestep: Tensor) -> Tensor:
        """Whole timesteps 0..999 are drawn, all alike."""
        return ((timestep >= 0) & (timestep <= NUM_TRAIN_TIMESTEPS - 1)).double()

    def sampling_timesteps(self, steps: int) -> Tensor:
        """Trailing spacing, as arXiv 2305.08891 recommends: it starts at the last timestep.

        Whole timesteps, as long as there are as many: with more steps some would come twice.
        """
        if steps > NUM_TRAIN_TIMESTEPS:
            return torch.linspace(self.noisy_timestep, self.clean_timestep, steps + 1, dtype=torch.float64)
        stride = NUM_TRAIN_TIMESTEPS / steps
        return (NUM_TRAIN_TIMESTEPS - stride * torch.arange(steps + 1, dtype=torch.float64)).round() - 1

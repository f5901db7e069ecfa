"""A model that the host holds: ComfyUI's MODEL, whatever its family, trained through a copy with adapters in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..diffusion import seeds
from ..diffusion.schedules import DDPM, FlowMatching, Schedule
from ..diffusion.solvers import Conditioning
from ..hosts.comfyui_model import PREFIX, AdapterKind, Facts, LiveModel, describe, layers_of, new_adapter, read_adapters
from .model import Model
from .ragged import separate
from .recompute import recompute_blocks

ATTENTION = r"(?:.*\.)?\w*(?:attn|attention)\w*\..*|single_blocks\.\d+\.linear[12]"
MLP = r"(?:.*\.)?\w*(?:mlp|ffn|feed_forward|ff)\w*(?:\..*)?"
TARGETS = {
    "attention": ATTENTION,
    "attention+mlp": f"{ATTENTION}|{MLP}",
    "all": r".*\.\d+\..*",
}
"""Presets of layers, as expressions for whole names: families call their layers differently, but not these parts.
FLUX's single blocks have attention and MLP in one. all: every layer of every block."""


@dataclass(frozen=True)
class HostedModel:
    """A MODEL on a wire, with the CLIP and the VAE that belong to it. It stays as it is: training takes a copy."""

    model: Any
    clip: Any = None
    vae: Any = None
    guidance: float = 1.0
    """What a guidance-distilled network is told while it is trained."""

    @cached_property
    def facts(self) -> Facts:
        return describe(self.model)

    @property
    def family(self) -> str:
        """A name for all models whose latents and text are alike."""
        return f"comfyui.{self.facts.family}"

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule that it was made with. Raises ValueError where we know none like it."""
        return schedule_of(self.facts)


@dataclass(frozen=True)
class HostedAdapter:
    """What is put on a HostedModel."""

    name: str
    kind: AdapterKind = "lora"
    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] | str = ATTENTION
    """Ends of the names of layers, or an expression for whole names."""
    weights: Mapping[str, Tensor] | None = None
    """Those of an earlier one, as in its file, which then has kind, rank and layers of its own."""
    gradient_checkpointing: bool = True
    offloading: bool = False
    """Whether the network's own weights come onto the device when they are wanted, and are gone afterwards."""

    def __post_init__(self) -> None:
        if self.offloading and not self.gradient_checkpointing:
            raise ValueError(
                "gradient_checkpointing: offloading needs it, for without it every layer that was brought in stays "
                "until the backward pass: switch it on, or offloading off"
            )

    def in_words(self, model: Any) -> str:
        """``lora of rank 16 on 76 of 304 layers``. Raises ValueError where it fits none."""
        if self.weights is not None:
            return "an adapter that is trained further"
        layers = layers_of(model)
        return f"{self.kind} of rank {self.rank} on {len(chosen_layers(layers, self.targets))} of {len(layers)} layers"


def schedule_of(facts: Facts) -> Schedule:
    """Our words for ComfyUI's noise levels; raises ValueError where they are none that we know."""
    if facts.prediction == "velocity":
        return FlowMatching(shift=round(facts.shift, 4))
    levels = torch.tensor(facts.levels, dtype=torch.float64)
    for zero_terminal_snr in (False, True) if facts.prediction == "v_prediction" else (False,):
        schedule = DDPM(prediction=facts.prediction, zero_terminal_snr=zero_terminal_snr)
        known = schedule.angles[1:].tan()
        # The last of zero terminal SNR is infinite, and very large in ComfyUI.
        if levels.shape == known.shape and torch.allclose(levels[:-1], known[:-1], rtol=1e-3):
            return schedule
    raise ValueError(f"model: the noise levels of this {facts.family} are none that we can train on")


def chosen_layers(layers: Mapping[str, Any], targets: tuple[str, ...] | str) -> list[str]:
    """The layers that get an adapter. Raises ValueError, with some to choose from, where there are none."""
    if isinstance(targets, str):
        expression = re.compile(targets)
        chosen = [layer for layer in layers if expression.fullmatch(layer)]
    else:
        chosen = [layer for layer in layers if any(f".{layer}".endswith(f".{end}") for end in targets)]
    if not chosen:
        some = ", ".join(list(layers)[:3])
        raise ValueError(f"pattern: no layer of this model fits {targets!r}; its layers are {some} ...")
    return chosen


def adapters_of(live: LiveModel, adapter: HostedAdapter, seed: int) -> dict[str, torch.nn.Module]:
    """The adapters, by layer; new ones draw from ``seed``."""
    if adapter.weights is not None:
        try:
            return read_adapters(live.patcher, adapter.weights)
        except ValueError as error:
            raise ValueError(f"continue_from: {error}") from error
    layers = layers_of(live.patcher)
    with seeds.global_seed(seed):
        return {
            layer: new_adapter(adapter.kind, live.weight(layer), adapter.rank, adapter.alpha)
            for layer in chosen_layers(layers, adapter.targets)
        }


class HostedNetwork(Model):
    """A HostedModel that is trained: latents (B, C, H, W), timesteps 0..1000 and outputs as for any other model."""

    network_class = ""

    def __init__(self, hosted: HostedModel, adapter: HostedAdapter, seed: int) -> None:
        """Raises ValueError where the host gives no copy, or the adapter does not fit."""
        self.hosted, self.live = hosted, LiveModel(hosted.model, hosted.guidance, adapter.offloading)
        self.live.attach(adapters_of(self.live, adapter, seed))
        super().__init__(self.live.network)  # type: ignore[arg-type]  # not one of diffusers
        self.adapters = (adapter.name,)
        if adapter.gradient_checkpointing:
            recompute_blocks(self.live.model.get_submodule(PREFIX.removesuffix(".")))
        self.live.exact = not adapter.gradient_checkpointing

    @property
    def patched(self) -> Any:
        """The MODEL as it is now, for the host's sampler."""
        return self.live.patcher

    def __call__(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.live(x, timestep, separate(conditioning, len(x)))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        raise ValueError("a model of the host takes latents of many sizes")

    def prepare_training(self, dtype: torch.dtype = torch.float32) -> None:
        if dtype != torch.float32:
            raise ValueError("weights_dtype: a ComfyUI model is trained in fp32; choose that")
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(weight.is_floating_point() and not name.endswith(".alpha"))

    def training(self) -> AbstractContextManager[None]:
        return self.live.training()

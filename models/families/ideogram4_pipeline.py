"""Ideogram 4's pipeline, taking captions that were encoded before."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@cache
def encoded_pipeline() -> Any:
    """Its pipeline, which takes captions in words only, taking encoded ones (L, D) in their place too."""
    import diffusers

    plain: Any = diffusers.Ideogram4Pipeline

    class EncodedIdeogram4Pipeline(plain):  # type: ignore[misc]
        unconditional_transformer: Any
        transformer: Any

        def __call__(
            self, prompt: Any, height: int = 1024, width: int = 1024, guidance_scale: float = 7.0, **more: Any
        ) -> Any:
            """With one guidance for all steps; up to 1 without the network that guides.

            Raises ValueError for more where that is not here.
            """
            if self.unconditional_transformer is None:
                self.unconditional_transformer = Silent(self.transformer.dtype)
            if isinstance(self.unconditional_transformer, Silent):
                if guidance_scale > 1:
                    raise ValueError("guidance: the network that guides Ideogram 4 is not here: set it to 1")
                guidance_scale = 1.0
            return super().__call__(
                prompt, height, width, guidance_scale=guidance_scale, guidance_schedule=None, **more
            )

        def encode_prompt(
            self, prompt: Any, grid_h: int, grid_w: int, max_sequence_length: int, device: torch.device
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            if isinstance(prompt, str) or isinstance(prompt[0], str):
                return super().encode_prompt(prompt, grid_h, grid_w, max_sequence_length, device)
            places = self._prepare_ids([len(text) for text in prompt], grid_h, grid_w, max_sequence_length, device)
            rows = [F.pad(text, (0, 0, max_sequence_length - len(text), grid_h * grid_w)) for text in prompt]
            return torch.stack(rows).to(device), *places

    return EncodedIdeogram4Pipeline


class Silent:
    """Stands where the network that guides would, and says nothing."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        return (torch.zeros_like(hidden_states),)

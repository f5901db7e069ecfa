"""diffusers' DiTTransformer2DModel, the diffusion transformer (arXiv 2212.09748)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...diffusion.solvers import Conditioning
from ..model import NewModel, numbered

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

HEAD_SIZE = 32


def keep_labels(network: nn.Module) -> None:
    """Switch off diffusers' label dropout, which each layer does by itself: we drop labels for the whole network."""
    from diffusers.models.embeddings import LabelEmbedding

    for module in network.modules():
        if isinstance(module, LabelEmbedding):
            module.dropout_prob = 0.0


class DiT(NewModel):
    network_class = "DiTTransformer2DModel"

    def __init__(self, network: ModelMixin) -> None:
        super().__init__(network)
        keep_labels(network)

    @classmethod
    def check(cls, *, size: int, width: int, depth: int) -> None:
        if width % HEAD_SIZE:
            raise ValueError(f"width {width} must be a multiple of {HEAD_SIZE}, the size of an attention head")
        if size % 2:
            raise ValueError(f"size {size} must be even: the transformer sees patches of 2x2")

    @classmethod
    def create(cls, *, channels: int, size: int, classes: int, width: int, depth: int, null_class: bool = False) -> DiT:
        from diffusers.models import DiTTransformer2DModel

        network = DiTTransformer2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            patch_size=2,
            num_attention_heads=width // HEAD_SIZE,
            attention_head_dim=HEAD_SIZE,
            num_layers=depth,
            num_embeds_ada_norm=max(classes, 1),
        )
        return cls(network)

    def __call__(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        labels = conditioning.get("label")
        if labels is None:
            labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
        known = self.network.config.num_embeds_ada_norm
        labels = numbered(labels.clamp(max=known - 1), known)  # one without classes knows one, which is everything
        return self.network(x.to(self.network.dtype), timestep=timestep, class_labels=labels).sample

    @property
    def classes(self) -> int:
        known = self.network.config.num_embeds_ada_norm
        return known if known > 1 else 0

    @property
    def null_class(self) -> bool:
        """diffusers' embedding of labels always has one more than there are classes."""
        return self.classes > 0

"""The diffusion transformer on ImageNet's classes (DiT, arXiv 2212.09748): class labels in place of captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...diffusion.solvers import Conditioning
from ..model import numbered
from .dit import keep_labels
from .pretrained import PretrainedModel

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class ClassConditionalDiT(PretrainedModel):
    title = "DiT (class labels)"
    pipeline_class = "DiTPipeline"
    network_class = "DiTTransformer2DModel"
    negative_prompts = False  # its pipeline guides away from no class by itself
    always_there = ("transformer_blocks.0",)  # whose embedding of the class serves the last layer too
    lora_targets = {"attention": ATTENTION, "all": (*ATTENTION, "ff.net.0.proj", "ff.net.2")}  # noqa: RUF012

    def __init__(self, network: ModelMixin, guidance: float = 1.0) -> None:
        super().__init__(network, guidance)
        keep_labels(network)

    @property
    def classes(self) -> int:
        return int(self.network.config.num_embeds_ada_norm)

    @property
    def null_class(self) -> bool:
        return True

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        labels = numbered(conditioning["label"], self.classes)
        output = self.network(x, timestep=timestep, class_labels=labels).sample
        return output[:, : x.shape[1]]  # the other half, if any, is the learned variance, which we do not train

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """Labels (B,) of names or numbers of classes; an empty caption is no class."""
        classes = pipeline.transformer.config.num_embeds_ada_norm
        return {"label": torch.tensor([label(caption.strip(), pipeline.labels, classes) for caption in captions])}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return {"class_labels": positive["label"].tolist()}


def label(caption: str, names: dict[str, int], classes: int) -> int:
    """The number of a class; ``classes`` stands for none. Raises ValueError for a name that is unknown."""
    if not caption:
        return classes
    number = int(caption) if caption.isdecimal() else names.get(caption, -1)
    if not 0 <= number <= classes:
        raise ValueError(
            f"the caption {caption!r} is no class of this model: use a name that it knows, or 0..{classes - 1}"
        )
    return number

"""FLUX.3: text and image each by itself, then in one row; eight layers of Qwen3-VL, FLUX.2's VAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...diffusion.schedules import Schedule
from ...diffusion.solvers import Conditioning
from ..ragged import lengths_of, padded_texts, texts_of
from .flux2 import in_patches, out_of_patches
from .flux3_pipeline import TextProcessor, flux3_pipeline, scheduler_settings
from .ideogram4 import Ideogram4
from .pretrained import CONTROL, PretrainedModel, prompt_arguments
from .vae import Moments, moments_of_patches

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
PLACES = 4
"""Numbers that say where a token lies: frame, row, column, and place in the text."""

FLOW_MAP = (
    "the step-distilled FLUX.3, which is told where each of its steps ends and is not trained here: choose the base "
    "model, black-forest-labs/flux-3-image-klein-base"
)


class Flux3(PretrainedModel):
    title = "FLUX.3"
    pipeline_class = "Flux3ModularPipeline"
    since = "0.42"
    network_class = "Flux3Transformer2DModel"
    packed = 4
    attention = "masked"
    text_parts = ("tokenizer", "text_encoder")
    single_file_types = ("flux-3-image",)
    control = "may"
    unread = ("lm_head.", "model.visual.")
    longest_text = 8184  # of 8192, beside what its template takes
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "ff.linear_in", "ff.linear_out"),
    }

    def __init__(self, network: ModelMixin, guidance: float = 1.0) -> None:
        super().__init__(network, guidance)
        network.pos_embed.register_forward_hook(hand_on)
        for module in network.modules():
            if type(module).__name__ == "Flux3Attention":
                module.register_forward_pre_hook(take_out, with_kwargs=True)

    @classmethod
    def pipeline(cls) -> Any:
        return flux3_pipeline()

    @classmethod
    def scheduler(cls, home: Path) -> Mapping[str, Any]:
        return scheduler_settings()

    @classmethod
    def few_steps(cls, schedule: Schedule, index: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
        """Never; raises ValueError for the one that is."""
        if network.get("flow_map"):
            raise ValueError(f"the model is {FLOW_MAP}")
        return False

    @classmethod
    def own_parts(cls, home: Path) -> dict[str, Callable[[], Any]]:
        """Its tokenizer's folder holds a processor of pictures too, which needs torchvision and is not asked here."""
        from transformers import AutoTokenizer

        return {"tokenizer": partial(AutoTokenizer.from_pretrained, home / "tokenizer")}

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        lengths = lengths_of(conditioning["mask"])
        words = max(lengths)
        mask = conditioning["mask"][:, :words] if min(lengths) < words else None
        told = {"txt_ids": with_mask(text_places(words, x.device), mask)}
        told |= {"img_ids": with_mask(image_places(x), everywhere(mask))}
        if CONTROL in conditioning:
            shown = conditioning[CONTROL]
            told |= {"image_cond_hidden_states": in_tokens(shown)}
            told |= {"image_cond_ids": with_mask(image_places(shown, picture=-1), everywhere(mask))}
        text, level = conditioning["text"][:, :words], timestep / 1000
        output = self.network(in_tokens(x), encoder_hidden_states=text, timestep=level, **told).sample
        height, width = (side // 2 for side in x.shape[-2:])
        return out_of_patches(output.transpose(1, 2).unflatten(2, (height, width)))

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """Each with its pipeline's padding up to the next 80 tokens, which the network sees: 3 MB."""
        from diffusers.modular_pipelines.flux3.encoders import Flux3TextEncoderStep

        encode: Any = Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds
        processor = TextProcessor(pipeline.tokenizer)
        return padded_texts([encode(pipeline.text_encoder, processor, caption)[0] for caption in captions])

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        """Its pipeline has one window for all captions of a call."""
        return prompt_arguments(positive, negative, prompt_embeds=lambda told: torch.stack(texts_of(told)))

    @classmethod
    def moments(cls, vae: Any, latents: Tensor) -> Moments:
        return moments_of_patches(vae, latents, out_of_patches)

    @classmethod
    def from_original(cls, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As diffusers converts it."""
        from diffusers.loaders.single_file_utils import convert_flux3_transformer_checkpoint_to_diffusers as convert

        found: dict[str, Tensor] = convert(dict(checkpoint))
        return found

    @classmethod
    def text_weights(cls, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """ComfyUI's files of Qwen3-VL, as Ideogram 4 reads them, inside of what can speak."""
        return {f"model.{name}": value for name, value in Ideogram4.text_weights(weights).items()}


def text_places(length: int, device: torch.device) -> Tensor:
    """Where each token of text lies (length, PLACES)."""
    places = torch.zeros(length, PLACES, device=device)
    places[:, 3] = torch.arange(length, device=device)
    return places


def image_places(latents: Tensor, picture: int = 0) -> Tensor:
    """Where each patch of latents lies (patches, PLACES), in its pipeline's steps; one that is shown is -1."""
    from diffusers.modular_pipelines.flux3.before_denoise import Flux3PrepareLatentsStep, _prepare_image_ids

    height, width = (side // 2 for side in latents.shape[-2:])
    places: Tensor = _prepare_image_ids(height, width, Flux3PrepareLatentsStep().image_rope_scale, picture)
    return places.to(latents.device)


def in_tokens(latents: Tensor) -> Tensor:
    return in_patches(latents).flatten(2).transpose(1, 2)


# The network attends to all of a row of tokens, also to what stands behind a text that is shorter than others of its
# batch. Which tokens are there goes along with their places, a column for each item, and from there as a mask to the
# attention. So it is among what each block is given, as gradient checkpointing needs it to be.


def everywhere(mask: Tensor | None) -> Tensor | None:
    """For tokens that all are there: of one for all, where there is a mask."""
    return mask[:, :1] if mask is not None else None


def with_mask(places: Tensor, mask: Tensor | None) -> Tensor:
    """Places (tokens, PLACES) and behind them who is there (B, tokens) or (B, 1): (tokens, PLACES + B)."""
    return places if mask is None else torch.cat([places, mask.T.float().expand(len(places), -1)], dim=1)


def hand_on(embed: nn.Module, given: tuple[Tensor], embedded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The places' cosines and sines (tokens, D), the latter with the mask that came behind the places."""
    cosines, sines = embedded
    return (cosines, torch.cat([sines, given[0][:, PLACES:]], dim=1)) if sines.shape == cosines.shape else embedded


def take_out(
    attention: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The attention's arguments, with the mask (B, 1, 1, tokens) that came behind the sines."""
    cosines, sines = named["image_rotary_emb"]
    width = cosines.shape[1]
    if sines.shape[1] == width:
        return given, named
    mask = sines[:, width:].T.bool()[:, None, None]
    return given, {**named, "attention_mask": mask, "image_rotary_emb": (cosines, sines[:, :width])}

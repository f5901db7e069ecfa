"""FLUX.1 dev and schnell: a transformer on packed 2x2 latents that reads T5, and CLIP's pooled output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...diffusion.rollouts.guidance import TOLD
from ...diffusion.schedules import Schedule
from ...diffusion.solvers import Conditioning
from .pretrained import CONTROL, Attention, Control, PretrainedModel
from .sd3 import JOINT_ATTENTION, JOINT_MLP

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

# Not the network's last layer, which is called proj_out too.
SINGLE_BLOCKS = ("proj_mlp", *(f"single_transformer_blocks.{block}.proj_out" for block in range(38)))


class Flux(PretrainedModel):
    title = "FLUX.1"
    pipeline_class: str = "FluxPipeline"
    network_class = "FluxTransformer2DModel"
    packed = 4
    text_parts: tuple[str, ...] = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    single_file_types: tuple[str, ...] = ("flux-dev", "flux-schnell")
    negative_prompts = False
    attention: Attention = "any"
    longest_text = 512
    reading_tokenizer = "tokenizer_2"
    told_guidance = True
    lora_targets = {  # noqa: RUF012
        "attention": JOINT_ATTENTION,
        "attention+mlp": (*JOINT_ATTENTION, *JOINT_MLP),
        "all": (*JOINT_ATTENTION, *JOINT_MLP, *SINGLE_BLOCKS),
    }

    def __init__(self, network: ModelMixin, guidance: float = 1.0) -> None:
        super().__init__(network, guidance)
        self._places: dict[tuple[int, int, int], Tensor] = {}

    @classmethod
    def few_steps(cls, schedule: Schedule, index: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
        return not network.get("guidance_embeds")  # schnell is not told its guidance

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        from diffusers import FluxPipeline

        batch, channels, height, width = x.shape
        text, places = conditioning["text"], self.places(height, width, x)
        tokens = FluxPipeline._pack_latents(x, batch, channels, height, width)
        seen = tokens.shape[1]
        if CONTROL in conditioning:
            shown = conditioning[CONTROL]
            high, wide = shown.shape[-2:]
            tokens = torch.cat([tokens, FluxPipeline._pack_latents(shown, batch, channels, high, wide)], dim=1)
            places = torch.cat([places, self.places(high, wide, x, picture=1)])
        guided = self.network.config.guidance_embeds
        output = self.network(
            tokens,
            timestep=timestep / 1000,
            guidance=conditioning.get(TOLD, x.new_full((batch,), self.guidance)) if guided else None,
            pooled_projections=conditioning["pooled"],
            encoder_hidden_states=text,
            txt_ids=text.new_zeros(text.shape[1], 3),
            img_ids=places,
        ).sample[:, :seen]
        return FluxPipeline._unpack_latents(output, height, width, vae_scale_factor=1)

    def places(self, height: int, width: int, x: Tensor, picture: int = 0) -> Tensor:
        """Where each packed token lies, (H / 2 * W / 2, 3): kept, since making it anew would wait for the device.

        Its first number tells the picture that is shown (1) from the one that is made (0).
        """
        from diffusers import FluxPipeline

        if (height, width, picture) not in self._places:
            with torch.inference_mode(False):  # to be remembered in training, whoever asks first
                places = FluxPipeline._prepare_latent_image_ids(len(x), height // 2, width // 2, x.device, x.dtype)
                places[..., 0] = picture
                self._places[height, width, picture] = places
        return self._places[height, width, picture].to(x)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        text, pooled, _ = pipeline.encode_prompt(
            captions, captions, device=pipeline.text_encoder.device, max_sequence_length=cls.most_tokens(pipeline)
        )
        return {"text": text, "pooled": pooled}

    @classmethod
    def most_tokens(cls, pipeline: Any) -> int:
        # schnell was made with shorter texts, and is told apart by what it is not told
        return cls.longest_text if pipeline.transformer.config.guidance_embeds else 256

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return {"prompt_embeds": positive["text"], "pooled_prompt_embeds": positive["pooled"]}


class FluxKontext(Flux):
    """FLUX.1 Kontext: FLUX.1 dev that is shown a picture to change."""

    title = "FLUX.1 Kontext"
    pipeline_class = "FluxKontextPipeline"
    single_file_types = ()
    control: Control = "may"

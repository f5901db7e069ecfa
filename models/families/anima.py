"""Anima: Cosmos-Predict2 on single images, told what a model of its own makes of Qwen3's states and T5's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...diffusion.solvers import Conditioning, padded_to
from ..ragged import lengths_of, padded_texts
from .anima_pipeline import anima_pipeline, resizing
from .pretrained import PretrainedModel, prompt_arguments

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class Anima(PretrainedModel):
    title = "Anima"
    pipeline_class = "AnimaModularPipeline"
    since = "0.39"
    network_class = "CosmosTransformer3DModel"
    text_parts = ("tokenizer", "t5_tokenizer", "text_encoder", "text_conditioner")
    reading_tokenizer = "t5_tokenizer"
    parts_in_file = ("text_conditioner",)
    single_file_types = ("anima",)
    bases = ("circlestone-labs/Anima-Base-v1.0-Diffusers",)
    vae_of_videos = True
    longest_text = 512
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "ff.net.0.proj", "ff.net.2"),
    }

    @classmethod
    def pipeline(cls) -> Any:
        return anima_pipeline()

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        with resizing():
            film: Tensor = self.network(
                x.unsqueeze(2),
                timestep=timestep / 1000,
                encoder_hidden_states=padded_to(conditioning["text"], self.longest_text),
                padding_mask=x.new_zeros(1, 1, *x.shape[-2:]),
            ).sample
        return film.squeeze(2)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """Without the zeros behind a caption, which the network sees, and which would take 1 MB a caption."""
        from diffusers.modular_pipelines.anima.before_denoise import AnimaTextConditioningStep as Conditioner
        from diffusers.modular_pipelines.anima.encoders import AnimaTextEncoderStep as Reader

        device, dtype = pipeline.text_encoder.device, pipeline.text_conditioner.dtype
        read: Any = Reader.encode_prompt(pipeline, captions, prepare_unconditional_embeds=False, device=device)
        names = ("qwen_prompt_embeds", "qwen_attention_mask", "t5_input_ids", "t5_attention_mask")
        told = {name: read[name] for name in names}
        texts = Conditioner._condition_prompt_embeds(
            pipeline, **told, device=device, conditioning_dtype=dtype, output_dtype=dtype
        )
        lengths = lengths_of(told["t5_attention_mask"])
        return padded_texts([text[:length] for text, length in zip(texts, lengths, strict=True)])

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(
            positive, negative, prompt_embeds=lambda told: padded_to(told["text"], cls.longest_text)
        )

    @classmethod
    def from_original(cls, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As diffusers converts Cosmos, less what makes the text."""
        from diffusers.loaders.single_file_utils import convert_cosmos_transformer_checkpoint_to_diffusers as convert

        network = {name: value for name, value in checkpoint.items() if not name.startswith("llm_adapter.")}
        found: dict[str, Tensor] = convert(network)
        return found

"""HiDream-I1: experts, and four text encoders, of which Llama is asked layer by layer; its sign is turned round."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.solvers import Conditioning
from .pretrained import PretrainedModel, prompt_arguments

ATTENTION = tuple(f"attn1.to_{name}{side}" for side in ("", "_t") for name in ("q", "k", "v", "out"))

LLAMA = "terminusresearch/HiDream-I1-Llama-3.1-8B-Instruct"
"""Where Llama is, which its own folders lack; one with ``text_encoder_4`` and ``tokenizer_4`` needs no other."""


class HiDream(PretrainedModel):
    title = "HiDream-I1"
    pipeline_class = "HiDreamImagePipeline"
    network_class = "HiDreamImageTransformer2DModel"
    text_parts = tuple(f"{part}{number}" for number in ("", "_2", "_3", "_4") for part in ("tokenizer", "text_encoder"))
    reading_tokenizer = "tokenizer_4"
    single_file_types = ("hidream",)
    bases = ("HiDream-ai/HiDream-I1-Full", "HiDream-ai/HiDream-I1-Dev", "HiDream-ai/HiDream-I1-Fast")
    longest_text = 128
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "w1", "w2", "w3"),
    }

    @classmethod
    def pipeline(cls) -> Any:
        return sized_pipeline()

    @classmethod
    def own_parts(cls, home: Path) -> dict[str, Callable[[], Any]]:
        from transformers import AutoTokenizer, LlamaForCausalLM

        place = home if (home / "text_encoder_4").is_dir() else LLAMA
        encoder = partial(LlamaForCausalLM.from_pretrained, place, subfolder="text_encoder_4", dtype="auto")
        return {
            "tokenizer_4": partial(AutoTokenizer.from_pretrained, place, subfolder="tokenizer_4"),
            "text_encoder_4": partial(encoder, attn_implementation="eager"),  # its pipeline asks for attentions, too
        }

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """Raises ValueError for oblong images that it has no places for."""
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        if height != width and height * width > self.network.max_seq:
            most = int(math.sqrt(self.network.max_seq)) * 16
            raise ValueError(f"{self.title} takes oblong images of {most} x {most} pixels' area at most: lower size")
        text = conditioning["text"].movedim(2, 0)
        output = self.network(
            x,
            timesteps=timestep,
            encoder_hidden_states_t5=text[0],
            encoder_hidden_states_llama3=text[1:],
            pooled_embeds=conditioning["pooled"],
        ).sample
        return -(output if output.shape == x.shape else out_of_patches(output, height, width))

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """T5's states and those of all of Llama's layers as one (B, 128, layers + 1, width): 34 MB a caption."""
        last = pipeline.tokenizer_4
        last.pad_token = last.eos_token  # as its pipeline does for one that it was given
        t5, _, llama, _, pooled, _ = pipeline.encode_prompt(
            captions, device=pipeline.text_encoder.device, do_classifier_free_guidance=False
        )
        return {"text": torch.cat([t5[None], llama.to(t5.dtype)]).movedim(0, 2).contiguous(), "pooled": pooled}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(
            positive,
            negative,
            prompt_embeds_t5=lambda told: told["text"].movedim(2, 0)[0],
            prompt_embeds_llama3=lambda told: told["text"].movedim(2, 0)[1:],
            pooled_prompt_embeds="pooled",
        )

    @classmethod
    def countable(cls, network: nn.Module) -> None:
        """Which expert a token goes to hangs on numbers: each is given an equal share. Captions are projected for all
        blocks, however many of these are gone through."""
        network.caption_projection = nn.Sequential(*network.caption_projection)  # type: ignore[misc,arg-type]
        for module in network.modules():
            if type(module).__name__ == "MOEFeedForwardSwiGLU":
                module.forward = partial(evenly, module)


def out_of_patches(tokens: Tensor, height: int, width: int) -> Tensor:
    """What its network puts out while it is trained (B, C, tokens, 4), as images (B, C, H, W)."""
    patches = tokens[:, :, : height * width].unflatten(2, (height, width)).unflatten(-1, (2, 2))
    return patches.permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)


def evenly(experts: Any, x: Tensor) -> Tensor:
    """As many tokens for each expert, weighted as they were."""
    _, weights, _ = experts.gate(x)
    rows = x.flatten(0, -2).repeat_interleave(experts.num_activated_experts, dim=0)
    count = len(experts.experts)
    shares = [expert(rows[place::count]) for place, expert in enumerate(experts.experts)]
    mixed = torch.cat(shares).view(*weights.shape, -1) * weights.unsqueeze(-1)
    mixed_back: Tensor = mixed.sum(1).view(x.shape) + experts.shared_experts(x)
    return mixed_back


@cache
def sized_pipeline() -> Any:
    """Its pipeline, which makes an image of one megapixel whatever it is asked for, making what it is asked for."""
    import diffusers

    plain: Any = diffusers.HiDreamImagePipeline

    class SizedHiDreamPipeline(plain):  # type: ignore[misc]
        def __call__(self, *words: Any, height: int = 1024, width: int = 1024, **more: Any) -> Any:
            self.default_sample_size = (math.sqrt(height * width) + 1e-3) / self.vae_scale_factor
            return super().__call__(*words, height=height, width=width, **more)

    return SizedHiDreamPipeline

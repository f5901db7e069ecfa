"""Pretrained models: the checkpoints that people have."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...hosts.current import current_host
from ...models.attention import DEFAULT, check_attention, installed
from ...models.families import PretrainedModel
from ...models.loading.hub import HUB_ID
from ...models.loading.load import load_network
from ...models.loading.model_files import CHECKPOINTS, changed_at, find_model, find_models, list_models
from ...models.loading.pretrained import Pretrained
from ...models.loading.recognise import inspect, refuse_pickle
from ...models.loading.source import Source
from ...models.quantization import Quantization, check_checkpointing, check_installed
from ...models.swapping import check_swap
from ...training.stream import Step
from ..base import CATEGORY, MODEL, PIPELINE, SCHEDULE, StepNode
from ..inputs import UNIQUE_ID, choice, integer, line, number, refusal, switch
from .model import ModelInfo

BY_PATH = "as in path"
TEXT_ENCODERS = ("text_encoders", "clip")
"""ComfyUI's folders of text encoders: the second is its former name."""

FEW_STEPS = (
    "this model was distilled to few sampling steps, which training slowly undoes: train the model that it was made "
    "from, and use the LoRA with either"
)


class LoadPretrained(StepNode):
    NODE_ID = "RolloutLoadPretrained"
    DISPLAY_NAME = "Load Pretrained"
    CATEGORY = f"{CATEGORY}/model"
    DESCRIPTION = (
        "A pretrained text-to-image model to fine-tune: a checkpoint file, a diffusers folder or a hub id. Its network "
        "is loaded when training starts; its text encoders and VAE only to encode the data set and to make samples."
    )
    SEARCH_ALIASES = (
        "checkpoint loader",
        "stable diffusion",
        "sdxl",
        "flux",
        "sd3",
        "fine-tune",
        "base model",
        "gradient checkpointing",
        "quantize",
        "nf4",
        "int8",
        "block swap",
        "blocks to swap",
        "offload",
        "low vram",
        "checkpoint",
    )
    RETURN_TYPES = (MODEL, SCHEDULE, PIPELINE)
    RETURN_NAMES = ("model", "schedule", "pipeline")
    OUTPUT_TOOLTIPS = (
        "The network. Put Add LoRA behind it, or train all of it.",
        "The noise schedule it was made with, with the way its family usually draws timesteps.",
        "Text encoders and VAE, for Encode Dataset and Sample Prompts.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        found = list_models(current_host(), *CHECKPOINTS)
        return {
            "required": {
                "checkpoint": choice(
                    [BY_PATH, *found],
                    BY_PATH,
                    "A model in the folders checkpoints, diffusion_models or diffusers; or name another one in path.",
                ),
                "path": line(
                    "",
                    "If checkpoint says so: a diffusers folder, a .safetensors file, or a hub id such as "
                    "stable-diffusion-v1-5/stable-diffusion-v1-5.",
                ),
                "storage": choice(
                    ("bf16", "fp16", "fp32"),
                    "bf16",
                    "Number format of the frozen weights. What is trained is always kept in fp32.",
                ),
                "quantize": choice(
                    ("none", "int8", "fp8", "nf4"),
                    "none",
                    "Squeeze the frozen weights to fit a smaller card, for LoRA only. int8 and fp8 need torchao, "
                    "nf4 needs bitsandbytes.",
                ),
                "gradient_checkpointing": switch(
                    True, "Compute parts of the network twice instead of remembering them: a third slower, far smaller."
                ),
            },
            "optional": {
                "base": line(
                    "",
                    "For a file that holds the network only: folder or hub id of the pipeline with its text encoders, "
                    "VAE and settings. Empty: the family's original on the hub.",
                    advanced=True,
                ),
                "vae": line("", "Another VAE: a file name from the vae folder, a path, or a folder.", advanced=True),
                "prediction": choice(
                    ("auto", "epsilon", "v_prediction"),
                    "auto",
                    "What an SD 1.x, 2.x or SDXL network puts out. auto: as its scheduler's settings say.",
                    advanced=True,
                ),
                "guidance": number(
                    1.0,
                    0.0,
                    100.0,
                    0.1,
                    "FLUX.1 dev: the guidance that the network is told while it is trained.",
                    advanced=True,
                ),
                "text_encoders": line(
                    "",
                    "Other text encoders: file names from the text_encoders folder, or paths, separated by commas, in "
                    "the pipeline's order, e.g. clip_l.safetensors, t5xxl_fp16.safetensors for FLUX.1.",
                    advanced=True,
                ),
                "clip_skip": integer(
                    0,
                    0,
                    23,
                    "SD 1.x and 2.x: which layer of CLIP captions and prompts are read from, counted from the last. "
                    "2 for most anime models; 0 and 1 are the last, the usual one.",
                    advanced=True,
                ),
                "swap": integer(
                    0,
                    0,
                    1000,
                    "For LoRA on a smaller card: so many of the network's blocks wait in main memory, and each is "
                    "copied to the card while the one before it computes. Slower the more there are; 0 = all stay.",
                    advanced=True,
                ),
                "attention": choice(
                    installed(),
                    DEFAULT,
                    "What computes attention. default and sdpa: torch, by the kernel it finds best; sdpa_flash: "
                    "torch's flash kernel. Where flash-attn is installed, flash and flash_varlen (for models that mask "
                    "captions); flash_3 for Hopper cards.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        checkpoint: str,
        path: str,
        quantize: str,
        gradient_checkpointing: bool | None = True,
        base: str = "",
        vae: str = "",
        text_encoders: str = "",
        swap: int | None = 0,
        attention: str | None = DEFAULT,
    ) -> bool | str:
        if checkpoint is None or path is None:
            return True
        if checkpoint == BY_PATH and not path.strip():
            return "path: name a diffusers folder, a .safetensors file or a hub id, or choose a checkpoint"
        if checkpoint != BY_PATH and checkpoint not in list_models(current_host(), *CHECKPOINTS):
            return f"checkpoint: {checkpoint!r} is not in your model folders; put it there, or name a path"
        named, file = ("path", path.strip()) if checkpoint == BY_PATH else ("checkpoint", checkpoint)
        if said := refusal(named, lambda: refuse_pickle(file)) or refusal(named, lambda: check_there(file)):
            return said
        if said := refusal("base", lambda: check_there(base or "", "diffusers")):
            return said
        try:
            check_installed(quantize or "none")
            check_checkpointing(quantize or "none", gradient_checkpointing is not False)
            check_swap(swap or 0, quantize or "none", gradient_checkpointing is not False)
            check_parts(vae or "", text_encoders or "")
            check_attention(attention or DEFAULT)
        except ValueError as error:
            return str(error)
        return True

    def build(
        self,
        unique_id: str,
        checkpoint: str,
        path: str,
        quantize: Quantization,
        gradient_checkpointing: bool,
        base: str = "",
        vae: str = "",
        text_encoders: str = "",
        **options: Any,
    ) -> dict[str, Any]:
        check_checkpointing(quantize, gradient_checkpointing)  # they may have been wired in
        check_swap(options.get("swap", 0), quantize, gradient_checkpointing)
        host = current_host()
        name = path if checkpoint == BY_PATH else checkpoint
        source = Source(
            find_model(host, name, *CHECKPOINTS),
            base=find_model(host, base, "diffusers"),
            vae=find_model(host, vae, "vae"),
            text_encoders=find_models(host, text_encoders, *TEXT_ENCODERS),
            quantization=quantize,
            gradient_checkpointing=gradient_checkpointing,
            **options,
        )
        pretrained = Pretrained(source, inspect(source))
        pretrained.info.kind.check_clip_skip(source.clip_skip)
        check_attention(source.attention, pretrained.info.kind)
        info = pretrained.info
        null_class = info.classes > 0
        about = ModelInfo(
            info.channels, None, info.classes, has_weights=True, pretrained=pretrained, null_class=null_class
        )
        stream = self.stream(unique_id, {"pretrained": pretrained}, about=about)
        words = [pretrained.in_words(), *([FEW_STEPS] if info.few_steps else [])]
        return {"ui": {"text": words}, "result": (stream, info.schedule, pretrained)}

    @classmethod
    def IS_CHANGED(
        cls, checkpoint: str, path: str, base: str = "", vae: str = "", text_encoders: str = "", **other: Any
    ) -> Any:
        host = current_host()
        files = [
            find_model(host, path if checkpoint == BY_PATH else checkpoint, *CHECKPOINTS),
            find_model(host, base, "diffusers"),
            find_model(host, vae, "vae"),
            *find_models(host, text_encoders, *TEXT_ENCODERS),
        ]
        return [changed_at(file) for file in files]

    def step(self, step: Step, pretrained: Pretrained) -> PretrainedModel:
        return step.keep(lambda: load_network(pretrained.source, pretrained.info, step.run.device))


def check_there(name: str, *kinds: str) -> None:
    """Raises ValueError for a file or a folder that is not here; whether the hub has an id, only the hub knows."""
    found = find_model(current_host(), name, *(kinds or CHECKPOINTS))
    if not found or Path(found).exists():
        return
    if Path(found).suffix == ".safetensors" or not HUB_ID.fullmatch(found):
        raise ValueError(f"{name.strip()!r} is not here: give a folder, a .safetensors file or a hub id (author/model)")


def check_parts(vae: str, text_encoders: str) -> None:
    """Raises ValueError where a VAE or a text encoder is named that is not there, or that is not read."""
    host = current_host()
    named = [
        ("vae", find_model(host, vae, "vae")),
        *(("text_encoders", file) for file in find_models(host, text_encoders, *TEXT_ENCODERS)),
    ]
    for name, file in named:
        if said := refusal(name, partial(refuse_pickle, file)):
            raise ValueError(said)
        if file and not Path(file).exists():
            raise ValueError(
                f"{name}: {file!r} is not in the {name} folder, and no path; put it there, or name its path"
            )

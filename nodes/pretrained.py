"""Pretrained models: the checkpoints that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..diffusion.schedules import Schedule
from ..training.host import current_host
from ..training.model_files import CHECKPOINTS, find_model, list_models
from ..training.models import PretrainedModel
from ..training.pretrained import Pretrained, Source, inspect, load_network
from ..training.stream import Step, Stream
from .base import MODEL, PIPELINE, SCHEDULE, StepNode
from .inputs import UNIQUE_ID, choice, line, number, switch
from .model import ModelInfo

BY_PATH = "as in path"


class LoadPretrained(StepNode):
    NODE_ID = "RolloutLoadPretrained"
    DISPLAY_NAME = "Load Pretrained"
    DESCRIPTION = (
        "A pretrained text-to-image model to fine-tune: a checkpoint file, a diffusers folder or a hub id. Its network "
        "is loaded when training starts; its text encoders and VAE only to encode the data set and to make samples."
    )
    SEARCH_ALIASES = ("checkpoint loader", "stable diffusion", "sdxl", "flux", "sd3", "fine-tune", "base model")
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
                    ("none", "int8", "int4", "fp8", "nf4"),
                    "none",
                    "Squeeze the frozen weights to fit a smaller card, for LoRA only. int8, int4 and fp8 need torchao, "
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
            },
            "hidden": UNIQUE_ID,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, checkpoint: str, path: str) -> bool | str:
        if checkpoint is None or path is None:
            return True
        if checkpoint == BY_PATH and not path.strip():
            return "path: name a diffusers folder, a .safetensors file or a hub id, or choose a checkpoint"
        if checkpoint != BY_PATH and checkpoint not in list_models(current_host(), *CHECKPOINTS):
            return f"checkpoint: {checkpoint!r} is not in your model folders; put it there, or name a path"
        return True

    def build(
        self, unique_id: str, checkpoint: str, path: str, quantize: str, base: str = "", vae: str = "", **options: Any
    ) -> tuple[Stream, Schedule, Pretrained]:
        host = current_host()
        name = path if checkpoint == BY_PATH else checkpoint
        source = Source(
            find_model(host, name, *CHECKPOINTS),
            base=find_model(host, base, "diffusers"),
            vae=find_model(host, vae, "vae"),
            quantization=quantize,  # type: ignore[arg-type]
            **options,
        )
        pretrained = Pretrained(source, inspect(source))
        info = pretrained.info
        about = ModelInfo(info.channels, None, info.classes, has_weights=True, pretrained=pretrained)
        return self.stream(unique_id, {"pretrained": pretrained}, about=about), info.schedule, pretrained

    @classmethod
    def IS_CHANGED(cls, checkpoint: str, path: str, **other: Any) -> Any:
        found = Path(find_model(current_host(), path if checkpoint == BY_PATH else checkpoint, *CHECKPOINTS))
        return found.stat().st_mtime_ns if found.exists() else 0

    def step(self, step: Step, pretrained: Pretrained) -> PretrainedModel:
        return step.keep(lambda: load_network(pretrained.source, pretrained.info, step.run.device))

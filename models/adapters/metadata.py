"""What a weights file says about itself: modelspec 1.0.1 for everybody, ``ss_`` fields for kohya's tools and A1111.

modelspec: https://github.com/Stability-AI/ModelSpec. The ``ss_`` fields are those that sd-scripts writes. All values
are words.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...diffusion.schedules import DDPM, Schedule
from ..loading.pretrained import Pretrained
from .layers import Adapter
from .names import network_config

SPEC = "1.0.1"


@dataclass(frozen=True)
class About:
    """What the author of a model says about it."""

    title: str
    author: str = ""
    description: str = ""
    trigger: str = ""
    """Words that call up what was learnt."""


@dataclass(frozen=True)
class Base:
    """The model that was trained."""

    family: str
    """Short name, as in ``models.PRETRAINED``."""
    config: Mapping[str, Any]
    """Settings of its network."""
    name: str = ""
    """As its author calls it: a file or a hub id."""
    prediction: str = ""
    """epsilon or v_prediction, where the family knows both."""

    @property
    def is_sd2(self) -> bool:
        return self.family == "sd" and self.config.get("cross_attention_dim") == 1024


def base_of(pretrained: Pretrained, schedule: Schedule | None) -> Base:
    """The model that was trained, on this schedule."""
    path = pretrained.source.path
    prediction = schedule.prediction if isinstance(schedule, DDPM) else ""
    name = Path(path).name if Path(path).exists() else path  # nobody's folders
    return Base(pretrained.info.family, network_config(pretrained), name, prediction)


def architecture(base: Base) -> str:
    """The architecture's name in modelspec."""
    if base.is_sd2:
        return "stable-diffusion-v2-768-v" if base.prediction == "v_prediction" else "stable-diffusion-v2-512"
    if base.family == "flux":
        return "flux-1-dev" if base.config.get("guidance_embeds") else "flux-1-schnell"
    if base.family == "sd3":
        kinds = {24: "stable-diffusion-3-medium", 38: "stable-diffusion-3.5-large"}
        is_35_medium = bool(base.config.get("dual_attention_layers"))
        return "stable-diffusion-3.5-medium" if is_35_medium else kinds.get(base.config["num_layers"], kinds[24])
    return ARCHITECTURES.get(base.family, base.family)


ARCHITECTURES = {
    "sd": "stable-diffusion-v1",
    "sdxl": "stable-diffusion-xl-v1-base",
    "lumina2": "lumina-2",
    "zimage": "z-image",
    "flux2_dev": "flux-2-dev",
    "flux2_klein": "flux-2-klein",
    "flux3": "flux-3",
    "qwen_image": "qwen-image",
    "qwen_image_edit": "qwen-image-edit",
    "qwen_image_edit_plus": "qwen-image-edit-plus",
    "qwen_image_21": "qwen-image-2.1",
    "flux_kontext": "flux-1-kontext-dev",
    "chroma": "chroma",
    "longcat_image": "longcat-image",
    "krea2": "krea-2",
    "ideogram4": "ideogram-4",
    "anima": "anima",
    "ernie_image": "ernie-image",
    "hidream": "hidream-i1",
    "wan": "wan-2.1",
}

IMPLEMENTATIONS = {
    "sd": "https://github.com/CompVis/stable-diffusion",
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "sd3": "https://github.com/Stability-AI/sd3.5",
    "flux": "https://github.com/black-forest-labs/flux",
    "flux_kontext": "https://github.com/black-forest-labs/flux",
    "lumina2": "https://github.com/Alpha-VLLM/Lumina-Image-2.0",
    "zimage": "https://github.com/Tongyi-MAI/Z-Image",
    "flux2_dev": "https://github.com/black-forest-labs/flux2",
    "flux2_klein": "https://github.com/black-forest-labs/flux2",
    "chroma": "https://github.com/lodestone-rock/flow",
    "longcat_image": "https://github.com/black-forest-labs/flux",
    "krea2": "https://github.com/krea-ai/krea-2",
    "ideogram4": "https://github.com/ideogram-oss/ideogram4",
    "qwen_image_21": "https://github.com/comfyanonymous/ComfyUI",
    "wan": "https://github.com/Wan-Video/Wan2.1",
    "anima": "https://github.com/nvidia-cosmos/cosmos-predict2",
}
"""The code whose layer names a file has, if it has not diffusers'."""

KOHYA_BASES = {
    "sd": "sd_v1",
    "sdxl": "sdxl_base_v1-0",
    "sd3": "sd3",
    "flux": "flux1",
    "flux_kontext": "flux1",
    "lumina2": "lumina2",
}
KOHYA_MODULES = {
    "sd3": "networks.lora_sd3",
    "flux": "networks.lora_flux",
    "flux_kontext": "networks.lora_flux",
    "lumina2": "networks.lora_lumina",
}


def modelspec(base: Base, about: About, *, is_lora: bool, by_diffusers: bool) -> dict[str, str]:
    """The ``modelspec.`` fields; those about which nothing is known are left out."""
    side = base.config.get("sample_size") or 128
    pixels = 8 * side if isinstance(side, int) else 1024
    known = IMPLEMENTATIONS.get(base.family, "diffusers")
    fields = {
        "sai_model_spec": SPEC,
        "architecture": architecture(base) + ("/lora" if is_lora else ""),
        "implementation": "diffusers" if by_diffusers else known,
        "title": about.title,
        "resolution": f"{pixels}x{pixels}",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "author": about.author,
        "description": about.description,
        "trigger_phrase": about.trigger,
        "prediction_type": {"v_prediction": "v"}.get(base.prediction, base.prediction),
    }
    return {f"modelspec.{name}": value for name, value in fields.items() if value}


def kohya_fields(base: Base, about: About, adapter: Adapter, run: Mapping[str, Any]) -> dict[str, str]:
    """The ``ss_`` fields; ``run`` may hold steps, seed, learning_rate, optimizer, epochs and the like."""
    parts = list(adapter.values())
    ranks, kinds = {part.rank for part in parts}, {part.kind for part in parts}
    kind = kinds.pop()
    version = "sd_v2" if base.is_sd2 else KOHYA_BASES.get(base.family, base.family)
    fields = {
        "v2": str(base.is_sd2),
        "base_model_version": version,
        "network_module": KOHYA_MODULES.get(base.family, "networks.lora") if kind == "lora" else "lycoris.kohya",
        "network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "network_alpha": str(parts[0].alpha) if len({part.alpha for part in parts}) == 1 else "Dynamic",
        "network_args": json.dumps({} if kind == "lora" else {"algo": kind}),
        "sd_model_name": base.name,
        "output_name": about.title,
        "training_comment": about.description,
        **{name: str(value) for name, value in run.items()},
    }
    return {f"ss_{name}": value for name, value in fields.items() if value}


def hashes(tensors: Mapping[str, Tensor], kohya: Mapping[str, str]) -> dict[str, str]:
    """modelspec's and A1111's hashes of a file with these tensors, of which its own metadata is no part."""
    from safetensors.torch import save

    content = save(dict(tensors), dict(kohya))
    start = 8 + int.from_bytes(content[:8], "little")
    whole = hashlib.sha256(content[start:]).hexdigest()
    legacy = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    return {"modelspec.hash_sha256": f"0x{whole}", "sshs_model_hash": whole, "sshs_legacy_hash": legacy}

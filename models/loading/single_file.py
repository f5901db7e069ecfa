"""Checkpoints of one ``.safetensors`` file: what they are and what they hold, from the header alone."""

from __future__ import annotations

from collections.abc import Mapping

from ...files.weights import Header, header
from ..families import PRETRAINED, known_families
from ..families.flux3 import FLOW_MAP
from .scaled_fp8 import is_scaled, refuse_unknown

PARTS = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g.", "text_encoders.t5xxl."),
    "text_encoder_3": ("text_encoders.t5xxl.",),
    "text_conditioner": ("llm_adapter.", "net.llm_adapter.", "model.diffusion_model.llm_adapter."),
}
"""How the names of a component's tensors begin in a file that holds it beside the network."""

MARKS = {
    "ernie_image": "layers.0.mlp.linear_fc2.weight",
    "ideogram4": "embed_image_indicator.weight",
    "anima": "llm_adapter.blocks.0.cross_attn.q_proj.weight",
}
"""How the name of a tensor ends that only files of this kind have, of those that diffusers does not know."""

OTHER_PURPOSES = {
    "inpaint": "an inpainting model, whose extra inputs this trainer does not make: choose the base model instead",
    "fill": "an inpainting model, whose extra inputs this trainer does not make: choose the base model instead",
    "depth": "a depth model, whose extra input this trainer does not make: choose the base model instead",
    "refiner": "the refiner of Stable Diffusion XL: choose the base model instead",
    "flux3distilled": FLOW_MAP,
    "flux-3-image-distilled": FLOW_MAP,
    "controlnet": "a ControlNet, which is no model of its own: choose the model that it goes with",
}
"""What cannot be trained, by a word in diffusers' name for it."""


def single_file_type(tensors: Mapping[str, Header]) -> str:
    """What diffusers calls this kind of checkpoint; empty where it does not know it."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    for ours, mark in MARKS.items():
        if any(name.endswith(mark) for name in tensors):
            return ours
    kind: str = infer_diffusers_model_type(tensors)
    if kind == "flux-schnell" and not any("vector_in." in name for name in tensors):
        return "longcat_image"  # which does not read CLIP
    if kind == "flux-2-dev" and not any("guidance_in." in name for name in tensors):
        return "flux-2-klein"  # which is not told its guidance
    if kind != "v1":
        return kind
    # diffusers takes all that it does not know for v1
    if "model.diffusion_model.label_emb.0.0.weight" in tensors:
        return "xl_base"  # SDXL's network alone: diffusers knows SDXL by its text encoders
    return "v1" if "model.diffusion_model.input_blocks.0.0.weight" in tensors else ""


def family_of_file(path: str, base_family: str = "") -> str:
    """The family of a checkpoint; a network in diffusers' own names is known by its base pipeline's family only.

    Raises ValueError for a file that is none, or none that can be trained.
    """
    tensors = header(path)
    refuse_unknown(tensors, path)
    if is_scaled(tensors) and (parts := parts_in(path) - {"text_conditioner"}):
        raise ValueError(
            f"{path!r} holds scaled fp8 weights of {', '.join(sorted(parts))} beside the network's: choose the file of "
            "the network alone (diffusion_models), or the bf16 or fp16 one"
        )
    kind = single_file_type(tensors)
    for family, model in PRETRAINED.items():
        if kind in model.single_file_types:
            return family
    for word, what in OTHER_PURPOSES.items():
        if word in kind:
            raise ValueError(f"{path!r} is {what}")
    if kind:
        raise ValueError(f"{path!r} looks like {kind!r}, and we can train {known_families()}")
    if any("lora_" in name or ".lora." in name for name in tensors):
        raise ValueError(f"{path!r} is a LoRA: choose the model that it was made for, and give the LoRA to Add LoRA")
    if base_family:
        return base_family
    raise ValueError(f"{path!r} is no checkpoint that we know; if it holds a network only, name its pipeline in base")


def default_base(path: str) -> str:
    """The hub id of the family's original, from which a checkpoint of this kind is completed."""
    from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS

    kind = single_file_type(header(path))
    several = next((model.bases for model in PRETRAINED.values() if kind in model.single_file_types), ())
    if len(several) == 1:
        return several[0]
    if several:
        raise ValueError(
            f"base: nothing in the file {path!r} says which original it was made from, and their settings differ: name "
            f"one of these: {', '.join(several)}"
        )
    if kind not in DIFFUSERS_DEFAULT_PIPELINE_PATHS:
        family_of_file(path)  # says what is wrong with it
    base: str = DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]
    return base


def parts_in(path: str) -> set[str]:
    """Which components a file holds beside its network; many hold none."""
    names = list(header(path))
    return {part for part, starts in PARTS.items() if any(name.startswith(starts) for name in names)}

"""The model, and the adapter in it."""

from __future__ import annotations

from typing import Any

from ...models.families import PRETRAINED, offered
from ...models.quantization import check_checkpointing
from ...nodes.models.pretrained import check_parts
from .draft import Draft
from .report import Report
from .settings import Settings

FRAME = "Model"
LYCORIS_FULL_RANK = 10_000  # with which LyCORIS' users ask for whole matrices
LARGEST_RANK = 4096  # with which peft's LoKr has whole matrices

OUR_FAMILY = {
    "sd1x": "sd",
    "sd2x": "sd",
    "sdxl": "sdxl",
    "sd3": "sd3",
    "flux": "flux",
    "lumina2": "lumina2",
    "z_image": "zimage",
    "qwen_image": "qwen_image",
    "krea2": "krea2",
    "chroma": "chroma",
    "longcat_image": "longcat_image",
    "flux2": "flux2_klein",
    "wan": "wan",
    "ideogram": "ideogram4",
    "anima": "anima",
    "ernie": "ernie_image",
    "hidream": "hidream",
}
"""Our name of a SimpleTuner family."""

FLAVOURS = {
    ("flux2", "dev"): "flux2_dev",
    ("flux", "kontext"): "flux_kontext",
    ("qwen_image", "edit-v1"): "qwen_image_edit",
    ("qwen_image", "edit-v2"): "qwen_image_edit_plus",
    ("qwen_image", "edit-v2+"): "qwen_image_edit_plus",
    ("qwen_image", "edit-v3"): "qwen_image_edit_plus",
}
"""The same where it is another one for a flavour."""

NO_FLOW = ("sd1x", "sd2x", "sdxl", "kolors", "pixart_sigma", "deepfloyd", "stable_cascade", "cosmos2image", "heartmula")
"""Families that are not trained by flow matching, unless prediction_type says so."""

HUB = {
    "sd1x": {
        "": "Lykon/dreamshaper-8",
        "dreamshaper": "Lykon/dreamshaper-8",
        "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "1.4": "CompVis/stable-diffusion-v1-4",
    },
    "sd2x": {
        "": "bghira/pseudo-flex-v2",
        "pseudoflex-v2": "bghira/pseudo-flex-v2",
        "pseudojourney": "bghira/pseudo-journey-v2",
        "digitaldiffusion": "Junglerally/Digital-Diffusion",
        "2.1": "stabilityai/stable-diffusion-2-1",
        "2.0": "stabilityai/stable-diffusion-2-0",
    },
    "sdxl": {
        "": "stabilityai/stable-diffusion-xl-base-1.0",
        "base-1.0": "stabilityai/stable-diffusion-xl-base-1.0",
        "base-0.9": "stabilityai/stable-diffusion-xl-base-0.9",
    },
    "sd3": {
        "": "stabilityai/stable-diffusion-3.5-medium",
        "medium": "stabilityai/stable-diffusion-3.5-medium",
        "large": "stabilityai/stable-diffusion-3.5-large",
    },
    "flux": {
        "": "black-forest-labs/FLUX.1-Krea-dev",
        "dev": "black-forest-labs/FLUX.1-dev",
        "krea": "black-forest-labs/FLUX.1-Krea-dev",
        "schnell": "black-forest-labs/FLUX.1-schnell",
        "kontext": "black-forest-labs/FLUX.1-Kontext-dev",
        "fluxbooru": "terminusresearch/fluxbooru-v0.3",
        "libreflux": "jimmycarter/LibreFlux-SimpleTuner",
    },
    "lumina2": {
        "": "Alpha-VLLM/Lumina-Image-2.0",
        "2.0": "Alpha-VLLM/Lumina-Image-2.0",
        "neta-lumina": "terminusresearch/neta-lumina-v1",
    },
    "z_image": {
        "": "Tongyi-MAI/Z-Image-Turbo",
        "base": "Tongyi-MAI/Z-Image",
        "turbo": "Tongyi-MAI/Z-Image-Turbo",
        "turbo-ostris-v2": "Tongyi-MAI/Z-Image-Turbo",
    },
    "qwen_image": {
        "": "Qwen/Qwen-Image-2512",
        "v1.0": "Qwen/Qwen-Image",
        "v2.0": "Qwen/Qwen-Image-2512",
        "edit-v1": "Qwen/Qwen-Image-Edit",
        "edit-v2": "Qwen/Qwen-Image-Edit-2509",
        "edit-v2+": "Qwen/Qwen-Image-Edit-2509",
        "edit-v3": "Qwen/Qwen-Image-Edit-2511",
    },
    "krea2": {"": "krea/Krea-2-Raw", "raw": "krea/Krea-2-Raw", "turbo": "krea/Krea-2-Turbo"},
    "chroma": {
        "": "lodestones/Chroma1-Base",
        "base": "lodestones/Chroma1-Base",
        "hd": "lodestones/Chroma1-HD",
        "flash": "lodestones/Chroma1-Flash",
    },
    "longcat_image": {
        "": "meituan-longcat/LongCat-Image",
        "final": "meituan-longcat/LongCat-Image",
        "dev": "meituan-longcat/LongCat-Image-Dev",
    },
    "wan": {
        "": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "t2v-480p-1.3b-2.1": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "t2v-480p-14b-2.1": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "ti2v-5b-2.2": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    },
    "ideogram": dict.fromkeys(("", "fp8", "nf4"), "CalamitousFelicitousness/Ideogram-4-bf16-Diffusers"),
    "anima": dict.fromkeys(("", "release", "base-v1.0"), "circlestone-labs/Anima-Base-v1.0-Diffusers"),
    "hidream": {
        "": "HiDream-ai/HiDream-I1-Full",
        "full": "HiDream-ai/HiDream-I1-Full",
        "dev": "HiDream-ai/HiDream-I1-Dev",
        "fast": "HiDream-ai/HiDream-I1-Fast",
    },
    "ernie": {"": "baidu/ERNIE-Image", "base": "baidu/ERNIE-Image", "turbo": "baidu/ERNIE-Image-Turbo"},
    "flux2": {
        "": "black-forest-labs/FLUX.2-klein-base-9B",
        "dev": "black-forest-labs/FLUX.2-dev",
        "klein-4b": "black-forest-labs/FLUX.2-klein-base-4B",
        "klein-9b": "black-forest-labs/FLUX.2-klein-base-9B",
    },
}
"""What SimpleTuner loads where no path is given, by family and flavour; "" is the family's default."""


CONTEXT = ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")
FLUX_LAYERS = {"context": CONTEXT, "context+ffs": (*CONTEXT, "ff_context.net.0.proj", "ff_context.net.2")}
"""Layers of the values of flux_lora_target that are no preset of ours."""


ALL_LAYERS = ("ideogram",)
"""Families of which the perceptrons get an adapter too unless somebody says otherwise."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
LYCORIS_CLASSES = {"Attention": ATTENTION, "FeedForward": FEED_FORWARD}
"""Layers of the classes that LyCORIS' presets name."""


def our_family(config: Settings) -> str:
    """Our name of what is trained; empty for a family that we do not have."""
    family, flavour = config["model_family"], config["model_flavour"]
    return FLAVOURS.get((family, flavour)) or OUR_FAMILY.get(family, "")


def is_flow_matching(config: Settings, report: Report) -> bool:
    prediction, made_otherwise = config["prediction_type"], config["model_family"] in NO_FLOW
    if not prediction:
        return not made_otherwise
    if "flow" in prediction and made_otherwise:
        report.changed.append(
            f"prediction_type: {prediction} is trained, but Sample Prompts samples with the pipeline's own scheduler, "
            "which is none for flow matching"
        )
    return "flow" in prediction


def load_pretrained(draft: Draft, config: Settings) -> str:
    """Load Pretrained; its path is left to the user where we cannot train the family."""
    family, prediction = config["model_family"], config["prediction_type"]
    path = path_of(config, family, draft.report)
    network = path and network_of(config, draft.report)
    squeezed = quantization(config["base_model_precision"], draft.report)
    return draft.add(
        FRAME,
        "RolloutLoadPretrained",
        path=network or path,
        base=path if network else None,
        vae=vae_of(config["pretrained_vae_model_name_or_path"], draft.report),
        quantize=squeezed,
        storage=storage(config["base_model_default_dtype"], config["mixed_precision"]),
        gradient_checkpointing=checkpointing(config["gradient_checkpointing"], squeezed, draft.report),
        prediction=prediction if prediction in ("epsilon", "v_prediction") else None,
        guidance=flux_guidance(config, draft.report) if family == "flux" else None,
    )


def path_of(config: Settings, family: str, report: Report) -> str:
    if OUR_FAMILY.get(family) not in PRETRAINED:
        known = ", ".join(name for name, ours in OUR_FAMILY.items() if ours in offered())
        report.left.append(
            f"model_family: {family!r} is none that we can train ({known}); everything else was imported. Name a model "
            "in Load Pretrained: path"
        )
        return ""
    if reason := PRETRAINED[OUR_FAMILY[family]].too_new():
        report.left.append(f"model_family: {reason}")
    path: str = config["pretrained_model_name_or_path"]
    if path:
        return path
    flavour = config["model_flavour"]
    path = HUB[family].get(flavour, "")
    if not path:
        report.left.append(f"model_flavour: {flavour!r} is not known here; name its model in Load Pretrained: path")
    return path


def network_of(config: Settings, report: Report) -> str:
    """A file that holds the network alone; empty where the model's own is meant."""
    names = ("pretrained_transformer_model_name_or_path", "pretrained_unet_model_name_or_path")
    for name, path in [(name, config[name]) for name in names]:
        if path.endswith(".safetensors"):
            return str(path)
        if path:
            report.left.append(
                f"{name}: {path!r} is no .safetensors file; name a file, or a whole model with this network, in Load "
                "Pretrained: path"
            )
    return ""


def vae_of(name: str, report: Report) -> str:
    try:
        check_parts(name, "")
    except ValueError:
        report.changed.append(
            f"pretrained_vae_model_name_or_path: {name!r} is no file or folder here, so the model's own VAE is used; "
            "fetch it, and name it in Load Pretrained: vae"
        )
        return ""
    return name


def quantization(precision: str, report: Report) -> str:
    if precision == "no_change":
        return "none"
    if precision.startswith(("int4", "uint4")):
        report.changed.append(
            f"base_model_precision: {precision!r} is not offered, for peft puts no LoRA on int4; it is nf4, which "
            "needs bitsandbytes"
        )
        return "nf4"
    ours = next((name for name in ("int8", "fp8", "nf4") if precision.startswith((name, f"u{name}"))), "none")
    if ours == "none":
        report.changed.append(f"base_model_precision: {precision!r} has no equal here; the weights are not squeezed")
    return ours


def storage(kept: str, mixed: str) -> str:
    """The number format of the frozen weights: with 16 bits that of the training, for the two do not mix."""
    if kept == "fp32":
        return "fp32"
    return {"fp16": "fp16", "no": "fp16" if kept == "fp16" else "bf16"}.get(mixed, "bf16")


def checkpointing(wanted: bool, squeezed: str, report: Report) -> bool:
    try:
        check_checkpointing(squeezed, wanted)
    except ValueError:
        report.changed.append(
            f"gradient_checkpointing: it is on, for {squeezed} weights without it take more memory than whole ones"
        )
        return True
    return wanted


def flux_guidance(config: Settings, report: Report) -> float:
    value: float = config["flux_guidance_value"]
    if config["flux_guidance_mode"] != "random-range":
        return value
    middle: float = (config["flux_guidance_min"] + config["flux_guidance_max"]) / 2
    report.changed.append(f"flux_guidance_mode: random-range is not offered; the guidance is its middle, {middle:g}")
    return middle


def add_lora(draft: Draft, config: Settings, lycoris: Settings, model: list[Any]) -> str:
    """Add LoRA, from the options of standard LoRA or from LyCORIS' own file."""
    if config["lora_type"] == "lycoris":
        if not lycoris.given:
            draft.report.left.append("lycoris_config: its file is not here; check kind, rank and alpha of Add LoRA")
        settings = lycoris_adapter(lycoris, draft.report)
        layers = lycoris_targets(lycoris, config["model_family"], draft.report) or targets(config, draft.report)
    else:
        rank, alpha = config["lora_rank"], config["lora_alpha"]
        settings = {"kind": "lora", "rank": rank, "alpha": float(rank) if alpha is None else alpha}
        settings |= {"dropout": config["lora_dropout"], "dora": config["use_dora"]}
        layers = targets(config, draft.report)
        family: Any = PRETRAINED.get(our_family(config))
        if family and family.trainable_text_parts:
            settings["text_encoders"] = config["train_text_encoder"]
    return draft.add(
        FRAME,
        "RolloutAddLora",
        model=model,
        continue_from=config["init_lora"],
        **layers,
        **settings,
    )


def lycoris_adapter(lycoris: Settings, report: Report) -> dict[str, Any]:
    algorithm = lycoris["algo"]
    kind = {"lora": "lora", "locon": "lora", "lokr": "lokr", "loha": "loha"}.get(algorithm)
    if kind is None:
        report.changed.append(f"lycoris_config: algo {algorithm!r} is not offered; it is lokr")
    rank, alpha = lycoris["linear_dim"], lycoris["linear_alpha"]
    if lycoris["full_matrix"] or rank >= LYCORIS_FULL_RANK:  # LyCORIS counts whole matrices once, whatever alpha says
        rank, alpha = LARGEST_RANK, float(LARGEST_RANK)
    found = {"kind": kind or "lokr", "rank": rank, "alpha": alpha, "dropout": lycoris["dropout"]}
    return found | ({"factor": lycoris["factor"]} if found["kind"] == "lokr" else {})


def lycoris_targets(lycoris: Settings, family: str, report: Report) -> dict[str, str]:
    """Add LoRA's layers for the classes of modules that LyCORIS names; nothing where it names none."""
    preset = lycoris["apply_preset"]
    if not isinstance(preset, dict):
        return {}
    named = preset.get("target_module") or []
    classes = named if isinstance(named, list) else [named]
    ends = [LYCORIS_CLASSES[name] for name in classes if name in LYCORIS_CLASSES]
    left = [str(name) for name in classes if name not in LYCORIS_CLASSES]
    if left:
        report.changed.append(
            f"lycoris_config: apply_preset: the modules {', '.join(left)} are not known here; name their layers in Add "
            "LoRA: pattern"
        )
    apart = preset.get("module_algo_map") or {}
    if any(other != {"factor": lycoris["factor"]} for name, other in apart.items() if name in classes):
        report.changed.append(
            "lycoris_config: module_algo_map: every layer has the same kind, rank and factor here, those of the whole"
        )
    if not ends:
        return {}
    if len(ends) == 1 and classes[0] != "FeedForward":
        return {"targets": "attention"}
    kind = PRETRAINED.get(OUR_FAMILY.get(family, ""))
    attention = kind.lora_targets["attention"] if kind else ATTENTION
    layers = [layer for name in classes for layer in (attention if name == "Attention" else FEED_FORWARD)]
    return {"targets": "custom", "pattern": ", ".join(dict.fromkeys(layers))}


def targets(config: Settings, report: Report) -> dict[str, str]:
    """Which layers get an adapter: SimpleTuner's usual ones are our preset attention, or all."""
    layers = config["peft_lora_target_modules"]
    if layers is not None:
        if isinstance(layers, list):
            return {"targets": "custom", "pattern": ", ".join(map(str, layers))}
        report.left.append(
            f"peft_lora_target_modules: write the layers that {layers!r} names into Add LoRA: pattern, and choose "
            "targets custom"
        )
    if config["model_family"] != "flux":
        return {"targets": "all" if config["model_family"] in ALL_LAYERS else "attention"}
    target = config["flux_lora_target"]
    if target in FLUX_LAYERS:
        return {"targets": "custom", "pattern": ", ".join(FLUX_LAYERS[target])}
    preset = "all" if "ffs" in target else "attention"
    if target not in ("all", "mmdit", "all+ffs"):
        report.changed.append(f"flux_lora_target: {target!r} becomes the preset {preset!r} of Add LoRA")
    return {"targets": preset}

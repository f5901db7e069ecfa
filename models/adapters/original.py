"""What a network's layers are called in the code that it was published with, which tools other than diffusers run.

diffusers renames and splits the layers of the models it loads; in the original, q, k and v often are one layer. Here
are the tables, a network each, for writing and for reading; names.py takes what one network has of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Layers = Mapping[str, tuple[int, ...]]
"""Shapes of the weights of a network's layers, (out, in) or (out, in, height, width), by diffusers' name."""

Groups = Mapping[str, tuple[str, ...]]
"""Original layer name -> the layers of diffusers that it consists of, in the order of its outputs."""

# "*" stands for the number of a block.
QKV = ("to_q", "to_k", "to_v")
ADDED_QKV = ("add_q_proj", "add_k_proj", "add_v_proj")


def _inside(block: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{block}.{name}" for name in names)


FLUX: Groups = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "double_blocks.*.img_mod.lin": ("transformer_blocks.*.norm1.linear",),
    "double_blocks.*.txt_mod.lin": ("transformer_blocks.*.norm1_context.linear",),
    "double_blocks.*.img_attn.qkv": _inside("transformer_blocks.*.attn", QKV),
    "double_blocks.*.txt_attn.qkv": _inside("transformer_blocks.*.attn", ADDED_QKV),
    "double_blocks.*.img_attn.proj": ("transformer_blocks.*.attn.to_out.0",),
    "double_blocks.*.txt_attn.proj": ("transformer_blocks.*.attn.to_add_out",),
    "double_blocks.*.img_mlp.0": ("transformer_blocks.*.ff.net.0.proj",),
    "double_blocks.*.img_mlp.2": ("transformer_blocks.*.ff.net.2",),
    "double_blocks.*.txt_mlp.0": ("transformer_blocks.*.ff_context.net.0.proj",),
    "double_blocks.*.txt_mlp.2": ("transformer_blocks.*.ff_context.net.2",),
    "single_blocks.*.modulation.lin": ("single_transformer_blocks.*.norm.linear",),
    "single_blocks.*.linear1": (
        *_inside("single_transformer_blocks.*.attn", QKV),
        "single_transformer_blocks.*.proj_mlp",
    ),
    "single_blocks.*.linear2": ("single_transformer_blocks.*.proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}

SD3: Groups = {
    "x_embedder.proj": ("pos_embed.proj",),
    "context_embedder": ("context_embedder",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "joint_blocks.*.x_block.adaLN_modulation.1": ("transformer_blocks.*.norm1.linear",),
    "joint_blocks.*.context_block.adaLN_modulation.1": ("transformer_blocks.*.norm1_context.linear",),
    "joint_blocks.*.x_block.attn.qkv": _inside("transformer_blocks.*.attn", QKV),
    "joint_blocks.*.x_block.attn2.qkv": _inside("transformer_blocks.*.attn2", QKV),
    "joint_blocks.*.context_block.attn.qkv": _inside("transformer_blocks.*.attn", ADDED_QKV),
    "joint_blocks.*.x_block.attn.proj": ("transformer_blocks.*.attn.to_out.0",),
    "joint_blocks.*.x_block.attn2.proj": ("transformer_blocks.*.attn2.to_out.0",),
    "joint_blocks.*.context_block.attn.proj": ("transformer_blocks.*.attn.to_add_out",),
    "joint_blocks.*.x_block.mlp.fc1": ("transformer_blocks.*.ff.net.0.proj",),
    "joint_blocks.*.x_block.mlp.fc2": ("transformer_blocks.*.ff.net.2",),
    "joint_blocks.*.context_block.mlp.fc1": ("transformer_blocks.*.ff_context.net.0.proj",),
    "joint_blocks.*.context_block.mlp.fc2": ("transformer_blocks.*.ff_context.net.2",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}


def _lumina_block(block: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{block}.attention.qkv": _inside(f"{block}.attn", QKV),
        f"{block}.attention.out": (f"{block}.attn.to_out.0",),
        f"{block}.feed_forward.w1": (f"{block}.feed_forward.linear_1",),
        f"{block}.feed_forward.w2": (f"{block}.feed_forward.linear_2",),
        f"{block}.feed_forward.w3": (f"{block}.feed_forward.linear_3",),
        f"{block}.adaLN_modulation.1": (f"{block}.norm1.linear",),
    }


LUMINA2: Groups = {
    "x_embedder": ("x_embedder",),
    "t_embedder.mlp.0": ("time_caption_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_caption_embed.timestep_embedder.linear_2",),
    "cap_embedder.1": ("time_caption_embed.caption_embedder.1",),
    **_lumina_block("layers.*"),
    **_lumina_block("noise_refiner.*"),
    **_lumina_block("context_refiner.*"),
    "final_layer.adaLN_modulation.1": ("norm_out.linear_1",),
    "final_layer.linear": ("norm_out.linear_2",),
}


def _zimage_block(block: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{block}.attention.qkv": _inside(f"{block}.attention", QKV),
        f"{block}.attention.out": (f"{block}.attention.to_out.0",),
        **{f"{block}.feed_forward.{name}": (f"{block}.feed_forward.{name}",) for name in ("w1", "w2", "w3")},
        f"{block}.adaLN_modulation.0": (f"{block}.adaLN_modulation.0",),
    }


ZIMAGE: Groups = {
    "x_embedder": ("all_x_embedder.2-1",),
    "t_embedder.mlp.0": ("t_embedder.mlp.0",),
    "t_embedder.mlp.2": ("t_embedder.mlp.2",),
    "cap_embedder.1": ("cap_embedder.1",),
    **_zimage_block("layers.*"),
    **_zimage_block("noise_refiner.*"),
    **_zimage_block("context_refiner.*"),
    "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
    "final_layer.linear": ("all_final_layer.2-1.linear",),
}

FLUX2: Groups = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_guidance_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_guidance_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_guidance_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_guidance_embed.guidance_embedder.linear_2",),
    "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
    "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "double_blocks.*.img_attn.qkv": _inside("transformer_blocks.*.attn", QKV),
    "double_blocks.*.txt_attn.qkv": _inside("transformer_blocks.*.attn", ADDED_QKV),
    "double_blocks.*.img_attn.proj": ("transformer_blocks.*.attn.to_out.0",),
    "double_blocks.*.txt_attn.proj": ("transformer_blocks.*.attn.to_add_out",),
    "double_blocks.*.img_mlp.0": ("transformer_blocks.*.ff.linear_in",),
    "double_blocks.*.img_mlp.2": ("transformer_blocks.*.ff.linear_out",),
    "double_blocks.*.txt_mlp.0": ("transformer_blocks.*.ff_context.linear_in",),
    "double_blocks.*.txt_mlp.2": ("transformer_blocks.*.ff_context.linear_out",),
    "single_blocks.*.linear1": ("single_transformer_blocks.*.attn.to_qkv_mlp_proj",),
    "single_blocks.*.linear2": ("single_transformer_blocks.*.attn.to_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}


def _flux3_block(original: str, block: str) -> dict[str, tuple[str, ...]]:
    layers = {f"{name}_proj": f"attn.to_{name}" for name in ("q", "k", "v")}
    layers |= {"attn_out": "attn.to_out.0", "mlp_in": "ff.linear_in", "mlp_out": "ff.linear_out"}
    return {f"{original}.{name}": (f"{block}.{layer}",) for name, layer in layers.items()}


FLUX3: Groups = {
    "emb_in.image": ("x_embedders.image",),
    "emb_in.image_cond": ("x_embedders.image_cond",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("timestep_embedder.linear_1",),
    "time_in.out_layer": ("timestep_embedder.linear_2",),
    **{
        f"{stream}_stream_modulations.{mode}.lin": (f"{stream}_stream_modulations.{mode}.linear",)
        for stream in ("early", "single")
        for mode in ("image", "image_cond", "txt")
    },
    **_flux3_block("content_mode_blocks.image.*", "mode_blocks.image.*"),
    **_flux3_block("content_mode_blocks.image_cond.*", "mode_blocks.image_cond.*"),
    **_flux3_block("txt_mode_blocks.*", "txt_mode_blocks.*"),
    **_flux3_block("single_blocks.*", "single_transformer_blocks.*"),
    "final_layer.image.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.image.linear": ("proj_out",),
}

LONGCAT: Groups = {
    **FLUX,
    "time_in.in_layer": ("time_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_embed.timestep_embedder.linear_2",),
}

CHROMA: Groups = {
    **FLUX,
    "distilled_guidance_layer.in_proj": ("distilled_guidance_layer.in_proj",),
    "distilled_guidance_layer.layers.*.in_layer": ("distilled_guidance_layer.layers.*.linear_1",),
    "distilled_guidance_layer.layers.*.out_layer": ("distilled_guidance_layer.layers.*.linear_2",),
    "distilled_guidance_layer.out_proj": ("distilled_guidance_layer.out_proj",),
}


QWEN_IMAGE_21: Groups = {
    **{
        name: (name,)
        for name in (
            "img_in",
            "txt_in.in_layer",
            "txt_in.out_layer",
            "time_text_embed.timestep_embedder.linear_1",
            "time_text_embed.timestep_embedder.linear_2",
            "modulation.1",
            *_inside("transformer_blocks.*.attn", (*QKV, "to_out.0")),
            "transformer_blocks.*.img_mlp.out",
            "norm_out.linear",
            "proj_out",
        )
    },
    "transformer_blocks.*.img_mlp.gate_up": _inside("transformer_blocks.*.img_mlp", ("gate_layer", "proj")),
}
"""ComfyUI's: its makers have diffusers' own."""


def _krea2_block(original: str, block: str) -> dict[str, tuple[str, ...]]:
    attention = {"wq": "to_q", "wk": "to_k", "wv": "to_v", "gate": "to_gate", "wo": "to_out.0"}
    return {
        **{f"{original}.attn.{theirs}": (f"{block}.attn.{ours}",) for theirs, ours in attention.items()},
        **{f"{original}.mlp.{name}": (f"{block}.ff.{name}",) for name in ("gate", "up", "down")},
    }


KREA2: Groups = {
    "first": ("img_in",),
    "tmlp.0": ("time_embed.linear_1",),
    "tmlp.2": ("time_embed.linear_2",),
    "tproj.1": ("time_mod_proj",),
    "txtmlp.1": ("txt_in.linear_1",),
    "txtmlp.3": ("txt_in.linear_2",),
    "txtfusion.projector": ("text_fusion.projector",),
    **_krea2_block("txtfusion.layerwise_blocks.*", "text_fusion.layerwise_blocks.*"),
    **_krea2_block("txtfusion.refiner_blocks.*", "text_fusion.refiner_blocks.*"),
    **_krea2_block("blocks.*", "transformer_blocks.*"),
    "last.linear": ("final_layer.linear",),
}


def _wan_attention(original: str, block: str) -> dict[str, tuple[str, ...]]:
    return {f"{original}.{name[3]}": (f"{block}.{name}",) for name in (*QKV, "to_out.0")}


WAN: Groups = {
    "time_embedding.0": ("condition_embedder.time_embedder.linear_1",),
    "time_embedding.2": ("condition_embedder.time_embedder.linear_2",),
    "time_projection.1": ("condition_embedder.time_proj",),
    "text_embedding.0": ("condition_embedder.text_embedder.linear_1",),
    "text_embedding.2": ("condition_embedder.text_embedder.linear_2",),
    **_wan_attention("blocks.*.self_attn", "blocks.*.attn1"),
    **_wan_attention("blocks.*.cross_attn", "blocks.*.attn2"),
    "blocks.*.ffn.0": ("blocks.*.ffn.net.0.proj",),
    "blocks.*.ffn.2": ("blocks.*.ffn.net.2",),
    "head.head": ("proj_out",),
}

IDEOGRAM4: Groups = {
    "layers.*.attention.qkv": _inside("layers.*.attention", QKV),
    "layers.*.attention.o": ("layers.*.attention.to_out.0",),
    **{f"layers.*.feed_forward.{name}": (f"layers.*.feed_forward.{name}",) for name in ("w1", "w2", "w3")},
    "layers.*.adaln_modulation": ("layers.*.adaln_modulation",),
    **{
        name: (name,)
        for name in (
            "input_proj",
            "llm_cond_proj",
            "t_embedding.mlp_in",
            "t_embedding.mlp_out",
            "adaln_proj",
            "final_layer.linear",
            "final_layer.adaln_modulation",
        )
    },
}


def _cosmos_block(original: str, block: str) -> dict[str, tuple[str, ...]]:
    attention = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "output_proj": "to_out.0"}
    found: dict[str, tuple[str, ...]] = {}
    for side, name in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        found |= {f"{original}.{side}.{theirs}": (f"{block}.{name}.{ours}",) for theirs, ours in attention.items()}
    for side, name in (("self_attn", "norm1"), ("cross_attn", "norm2"), ("mlp", "norm3")):
        found |= {f"{original}.adaln_modulation_{side}.{n}": (f"{block}.{name}.linear_{n}",) for n in (1, 2)}
    return found


COSMOS: Groups = {
    "x_embedder.proj.1": ("patch_embed.proj",),
    "t_embedder.1.linear_1": ("time_embed.t_embedder.linear_1",),
    "t_embedder.1.linear_2": ("time_embed.t_embedder.linear_2",),
    **_cosmos_block("blocks.*", "transformer_blocks.*"),
    "blocks.*.mlp.layer1": ("transformer_blocks.*.ff.net.0.proj",),
    "blocks.*.mlp.layer2": ("transformer_blocks.*.ff.net.2",),
    "final_layer.adaln_modulation.1": ("norm_out.linear_1",),
    "final_layer.adaln_modulation.2": ("norm_out.linear_2",),
    "final_layer.linear": ("proj_out",),
}

ORIGINAL: Mapping[str, Groups] = {
    "FluxTransformer2DModel": FLUX,
    "SD3Transformer2DModel": SD3,
    "Lumina2Transformer2DModel": LUMINA2,
    "ZImageTransformer2DModel": ZIMAGE,
    "Flux2Transformer2DModel": FLUX2,
    "Flux3Transformer2DModel": FLUX3,
    "ChromaTransformer2DModel": CHROMA,
    "LongCatImageTransformer2DModel": LONGCAT,
    "Krea2Transformer2DModel": KREA2,
    "QwenImage21Transformer2DModel": QWEN_IMAGE_21,
    "WanTransformer3DModel": WAN,
    "Ideogram4Transformer2DModel": IDEOGRAM4,
    "CosmosTransformer3DModel": COSMOS,
}
"""Transformers whose original code has other names, by diffusers' class name."""


TURNED = (
    "FluxTransformer2DModel",
    "Flux2Transformer2DModel",
    "Flux3Transformer2DModel",
    "LongCatImageTransformer2DModel",
)
"""Transformers of which diffusers has the last scale before its shift, and the original after it."""


def turned(network_class: str, layer: str, layers: Layers) -> bool:
    """Whether diffusers has the two halves of this layer's outputs, scale and shift, the other way round."""
    if network_class in TURNED:
        return layer == "norm_out.linear"
    if network_class == "SD3Transformer2DModel":
        last = sum(name.endswith(".norm1_context.linear") for name in layers) - 1
        return layer in ("norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear")
    return False


def with_numbers(groups: Groups, layers: Layers) -> dict[str, tuple[str, ...]]:
    """The groups with the numbers of the blocks that this network has."""
    filled: dict[str, tuple[str, ...]] = {}
    for original, parts in groups.items():
        pattern = re.compile(re.escape(parts[0]).replace(r"\*", r"(\d+)"))
        for match in filter(None, map(pattern.fullmatch, layers)):
            number = match[1] if match.groups() else ""
            filled[original.replace("*", number)] = tuple(part.replace("*", number) for part in parts)
    return filled


UNET_NAMES = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
}

RESNET_NAMES = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def unet_name(layer: str, resnets: int, layers: Layers) -> str | None:
    """A U-Net's layer in the original (latent diffusion) code, which counts all blocks of a side in one row.

    ``resnets`` is the number of them in a down block; an up block has one more.
    """
    if layer in UNET_NAMES:
        return UNET_NAMES[layer]
    row = resnets + 1
    if match := re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", layer
    ):
        side, block, kind, number, inner = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * row}.0.op"
        if kind == "upsamplers":
            after = 1 + any(name.startswith(f"up_blocks.{block}.attentions.") for name in layers)
            return f"output_blocks.{block * row + resnets}.{after}.conv"
        place = (
            f"input_blocks.{1 + block * row + number}" if side == "down" else f"output_blocks.{block * row + number}"
        )
        return f"{place}.0.{RESNET_NAMES.get(inner, inner)}" if kind == "resnets" else f"{place}.1.{inner}"
    if match := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.+)", layer):
        return f"middle_block.{2 * int(match[1])}.{RESNET_NAMES.get(match[2], match[2])}"
    if match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", layer):
        return f"middle_block.1.{match[1]}"
    return None

"""Single-file checkpoints as a real user has them: the names of tensors that the models' own repositories gave them."""

import json
import re

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_unet(network):
    """A UNet2DConditionModel's weights as Stable Diffusion's repository names them."""
    layers = network.config.layers_per_block + 1
    with_attention = {block for block, kind in enumerate(network.config.up_block_types) if "Attn" in kind}
    return {
        f"model.diffusion_model.{ldm_unet_name(name, layers, with_attention)}": value.contiguous()
        for name, value in network.state_dict().items()
    }


def ldm_unet_name(name, layers, with_attention):
    parts = name.split(".")
    layer, ending = name.rsplit(".", 1)
    if layer in UNET:
        return f"{UNET[layer]}.{ending}"
    if parts[0] == "mid_block":
        place = {"resnets": 2 * int(parts[2]), "attentions": 1}[parts[1]]
        return f"middle_block.{place}.{inside_unet(parts[1], parts[3:])}"
    block, kind, index = int(parts[1]), parts[2], int(parts[3])
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * layers}.0.op.{ending}"
    if kind == "upsamplers":
        return f"output_blocks.{block * layers + layers - 1}.{1 + (block in with_attention)}.conv.{ending}"
    side, first = ("input", 1) if parts[0] == "down_blocks" else ("output", 0)
    place = first + block * layers + index
    return f"{side}_blocks.{place}.{int(kind == 'attentions')}.{inside_unet(kind, parts[4:])}"


def inside_unet(kind, parts):
    return ".".join([RESNET[parts[0]], *parts[1:]] if kind == "resnets" else parts)


def ldm_vae(vae, prefix="first_stage_model."):
    """An AutoencoderKL's weights as Stable Diffusion's repository names them; its attention is made of convolutions."""
    last, found = len(vae.config.block_out_channels) - 1, {}
    for name, value in vae.state_dict().items():
        for pattern, new in (
            (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
            (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
            (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda match: f"up.{last - int(match[1])}.block.{match[2]}"),
            (r"up_blocks\.(\d+)\.upsamplers\.0", lambda match: f"up.{last - int(match[1])}.upsample"),
            (r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}"),
            (r"mid_block\.attentions\.0\.", "mid.attn_1."),
            (r"group_norm", "norm"),
            (r"to_([qkv])\.", r"\1."),
            (r"to_out\.0", "proj_out"),
            (r"conv_shortcut", "nin_shortcut"),
            (r"conv_norm_out", "norm_out"),
        ):
            name = re.sub(pattern, new, name)
        convolution = "attn_1" in name and value.dim() == 2
        found[prefix + name] = (value[..., None, None] if convolution else value).contiguous()
    return found


def clip(encoder, prefix=""):
    """A CLIP text encoder's weights as transformers 4 and ComfyUI's files name them."""
    return {
        prefix + (name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"): value
        for name, value in encoder.state_dict().items()
    }


SD3 = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}


def sd3(network):
    """An SD3Transformer2DModel's weights as its repository names them: q, k and v in one, scale and shift swapped."""
    weights, found = network.state_dict(), {}
    last = f"transformer_blocks.{network.config.num_layers - 1}.norm1_context.linear"
    for name, value in weights.items():
        block = re.match(r"transformer_blocks\.(\d+)\.", name)
        start = f"joint_blocks.{block[1]}." if block else ""
        layer = name[block.end() :] if block else name
        if re.search(r"(to_[kv]|add_[kv]_proj)\.", layer):
            continue
        if match := re.match(r"attn\.(to_q|add_q_proj)\.(.*)", layer):
            names = [name.replace(match[1], match[1].replace("q", other)) for other in "qkv"]
            side = "x" if match[1] == "to_q" else "context"
            found[f"{start}{side}_block.attn.qkv.{match[2]}"] = torch.cat([weights[each] for each in names])
            continue
        if name.startswith((last, "norm_out.linear")):
            value = torch.cat(value.chunk(2)[::-1])
        old = next((old for old in SD3 if layer == old or layer.startswith(f"{old}.")), layer)
        found[start + layer.replace(old, SD3.get(old, old), 1)] = value
    return {f"model.diffusion_model.{name}": value.contiguous() for name, value in found.items()}


def ideogram4(network):
    """An Ideogram4Transformer2DModel's weights as its repository names them: q, k and v in one."""
    weights, found = network.state_dict(), {}
    for name, value in weights.items():
        if "to_q" in name:
            parts = [weights[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            found[name.replace("to_q", "qkv")] = torch.cat(parts)
        elif "to_k" not in name and "to_v" not in name:
            found[name.replace("to_out.0", "o")] = value
    return found


COSMOS = {
    "time_embed.t_embedder": "t_embedder.1",
    "time_embed.norm": "t_embedding_norm",
    "transformer_blocks": "blocks",
    **{
        f"{ours}.linear_{number}": f"adaln_modulation_{theirs}.{number}"
        for ours, theirs in (("norm1", "self_attn"), ("norm2", "cross_attn"), ("norm3", "mlp"))
        for number in (1, 2)
    },
    "attn1": "self_attn",
    "attn2": "cross_attn",
    "to_q": "q_proj",
    "to_k": "k_proj",
    "to_v": "v_proj",
    "to_out.0": "output_proj",
    "norm_q": "q_norm",
    "norm_k": "k_norm",
    "ff.net.0.proj": "mlp.layer1",
    "ff.net.2": "mlp.layer2",
    "patch_embed.proj": "x_embedder.proj.1",
    "norm_out.linear_1": "final_layer.adaln_modulation.1",
    "norm_out.linear_2": "final_layer.adaln_modulation.2",
    "proj_out": "final_layer.linear",
}


def anima(network, conditioner, prefix="net."):
    """Anima's file: the network as Cosmos-Predict2 names it, and what makes its text."""
    found = {f"{prefix}llm_adapter.{name}": value for name, value in conditioner.state_dict().items()}
    for name, value in network.state_dict().items():
        for ours, theirs in COSMOS.items():
            name = name.replace(ours, theirs)
        found[prefix + name] = value
    return found


def write(path, *weights, **marks):
    """One ``.safetensors`` file with these weights, and ``marks`` as tensors without content; returns the path."""
    together = {name: value.clone() for each in weights for name, value in each.items()}
    save_file(together | {name: torch.zeros(0) for name in marks}, path)
    return path


def write_header(path, **shapes):
    """A file that says it holds tensors of these shapes (half precision); the disk keeps its header only."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path

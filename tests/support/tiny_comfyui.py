"""Models of a few thousand weights in ComfyUI's own classes, and nodes that give them: a node pack for tests.

ComfyUI loads this file as it loads any other pack. No checkpoint is so small, so these come from no file.
"""

import functools
import json
import re
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.quant_ops
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import comfy.utils
import folder_paths
import torch

CONFIGS = {
    "sd": ("SD15", {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
        "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1, "context_dim": 32, "use_linear_in_transformer": False, "adm_in_channels": None,
        "use_spatial_transformer": True, "legacy": False, "num_heads": 2, "num_head_channels": -1,
        "dtype": torch.float32,
    }),
    "flux": ("Flux", {
        "image_model": "flux", "axes_dim": [4, 6, 6], "num_heads": 2, "mlp_ratio": 2.0, "theta": 10000,
        "out_channels": 16, "qkv_bias": True, "txt_ids_dims": [], "in_channels": 16, "hidden_size": 32,
        "context_in_dim": 32, "patch_size": 2,
        "vec_in_dim": 32, "depth": 2, "depth_single_blocks": 2, "guidance_embed": True, "dtype": torch.float32,
    }),
    "zimage": ("ZImage", {
        "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 32, "n_layers": 2,
        "qk_norm": True, "n_heads": 8, "n_kv_heads": 8, "axes_dims": [8, 12, 12], "axes_lens": [64, 64, 64],
        "rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True, "time_scale": 1000.0,
        "pad_tokens_multiple": 32, "dtype": torch.float32,
    }),
    "wan": ("WAN21_T2V", {
        "image_model": "wan2.1", "model_type": "t2v", "dim": 32, "out_dim": 16, "num_heads": 2, "ffn_dim": 64,
        "num_layers": 2, "patch_size": (1, 2, 2), "freq_dim": 32, "window_size": (-1, -1), "qk_norm": True,
        "cross_attn_norm": True, "eps": 1e-6, "in_dim": 16, "text_dim": 4096, "dtype": torch.float32,
    }),
}  # fmt: skip
"""ComfyUI's class of each family, and a small network's settings."""


def settings_of(family, dtype, compute=None):
    """ComfyUI's settings of a family with weights in that format."""
    kind, config = CONFIGS[family]
    settings = getattr(comfy.supported_models, kind)(config)
    settings.unet_config = dict(config, dtype=dtype)
    settings.set_inference_dtype(dtype, compute)
    return settings


def patcher_of(model, *how):
    """The MODEL of a network; ``how`` it was made is how it is loaded again."""
    load, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    patcher = comfy.model_patcher.ModelPatcher(model, load, offload)
    patcher.cached_patcher_init = (how[0], how[1:])
    return patcher


def make(family, dtype=torch.float32, compute=None, disable_dynamic=True):
    """A MODEL, always with the same weights."""
    settings = settings_of(family, dtype, compute)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = settings.get_model({})
        for name, weight in sorted(model.diffusion_model.named_parameters()):
            own = weight.dtype  # some layers stay in float32
            fan = weight[0].numel() if weight.ndim > 1 else 1
            weight.data = (
                torch.randn(weight.shape) / fan**0.5 if weight.ndim > 1 else 1 + 0.3 * torch.randn(weight.shape)
            )
            if name.endswith("bias"):
                weight.data = 0.3 * torch.randn(weight.shape)
            weight.data = weight.data.to(own)
    return patcher_of(model, make, family, dtype, compute)


def quantised(family, format, disable_dynamic=True):
    """The same MODEL in bf16, with the layers of its blocks in one of ComfyUI's formats of few bits."""
    settings = settings_of(family, torch.bfloat16, torch.bfloat16)
    settings.quant_config = {"mixed_ops": True}
    model = settings.get_model({})
    layout = comfy.quant_ops.QUANT_ALGOS[format]["comfy_tensor_layout"]
    wanted = torch.tensor(list(json.dumps({"format": format}).encode()), dtype=torch.uint8)
    given = {}
    for name, weight in make(family, torch.bfloat16).model.diffusion_model.state_dict().items():
        layer = name.removesuffix(".weight")
        given[name] = weight
        if re.fullmatch(r"(layers|blocks)\.\d+\..*(attention|attn|feed_forward|ffn).*", layer) and weight.ndim == 2:
            given |= comfy.quant_ops.QuantizedTensor.from_float(weight, layout).state_dict(name)
            given[f"{layer}.comfy_quant"] = wanted
    model.diffusion_model.load_state_dict(given)
    return patcher_of(model, quantised, family, format)


def dequantised(family, format, disable_dynamic=True):
    """A MODEL in bf16 whose weights are those that the ones in that format stand for."""
    return plain_with(quantised(family, format), dequantised, family, format)


def plain_with(other, *how):
    """A MODEL in bf16 with the weights of another one of the family ``how[1]``."""
    plain = make(how[1], torch.bfloat16).model
    for name, weight in other.model.diffusion_model.named_parameters():
        meant = weight.dequantize() if isinstance(weight.data, comfy.quant_ops.QuantizedTensor) else weight
        plain.diffusion_model.get_parameter(name).data = meant.detach().to(torch.bfloat16, copy=True)
    return patcher_of(plain, *how)


def in_fp8(family):
    """A MODEL with weights in fp8, which computes in bf16."""
    return make(family, torch.float8_e4m3fn, torch.bfloat16)


def as_in_fp8(family, disable_dynamic=True):
    """A MODEL in bf16 with the very same weights."""
    return plain_with(in_fp8(family), as_in_fp8, family)


@functools.cache
def letters(family):
    width = 4096 if family == "wan" else 32
    return torch.randn(128, width, generator=torch.Generator().manual_seed(1))


class Clip:
    """A text encoder that looks letters up in a table; as long as the text, where the family's are."""

    def __init__(self, family):
        self.family, self.patcher = family, None
        self.layer_idx = None
        table = torch.nn.Embedding(*letters(family).shape)
        table.weight.data = letters(family).clone()
        self.patcher = comfy.model_patcher.ModelPatcher(table, torch.device("cpu"), torch.device("cpu"))

    def tokenize(self, text):
        numbers = [ord(letter) % 128 for letter in text] or [0]
        return numbers if self.family == "zimage" else (numbers + [0] * 12)[:12]

    def encode_from_tokens_scheduled(self, tokens):
        text = letters(self.family)[tokens][None]
        return [[text, {"pooled_output": text.mean(1)}]]


def vae(family):
    """A TAESD with random weights; of four or sixteen channels."""
    channels = 4 if family == "sd" else 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        part = comfy.taesd.taesd.TAESD(latent_channels=channels)
        for name, weight in sorted(part.named_parameters()):
            if weight.ndim > 1:
                weight.data = torch.randn(weight.shape) / weight[0].numel() ** 0.5
            elif name.endswith("bias"):
                weight.data = torch.zeros(weight.shape)
    return comfy.sd.VAE(sd=part.state_dict())


class TinyComfy:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "build", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"family": (list(CONFIGS),)}}

    def build(self, family):
        return make(family), Clip(family), vae(family)


class TinyWithoutLoader(TinyComfy):
    """As loaders of their own make them: nothing says how to load it again."""

    def build(self, family):
        model = make(family)
        model.cached_patcher_init = None
        return model, Clip(family), vae(family)


class WriteNetwork:
    """A file for Load Diffusion Model: as small as a Wan can be that ComfyUI knows by its weights."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "build", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING",)}}

    def build(self, name):
        CONFIGS["wan file"] = ("WAN21_T2V", {**CONFIGS["wan"][1], "dim": 128, "num_heads": 1, "freq_dim": 256})
        weights = make("wan file").model.diffusion_model.state_dict()
        place = Path(folder_paths.get_folder_paths("diffusion_models")[0], name)
        place.parent.mkdir(exist_ok=True)
        comfy.utils.save_torch_file({key: value.contiguous() for key, value in weights.items()}, str(place))
        return {}


class MakeImages:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "build", ("IMAGE", "MASK", "STRING")
    OUTPUT_IS_LIST = (True, True, True)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "count": ("INT", {"default": 4, "min": 1, "max": 64}),
                "oblong": ("BOOLEAN", {"default": False}),
            }
        }

    def build(self, count, oblong):
        random = torch.Generator().manual_seed(3)
        sizes = [(64, 96) if oblong and place % 2 else (64, 64) for place in range(count)]
        images = [torch.rand(1, *size, 3, generator=random) for size in sizes]
        masks = [torch.ones(1, *size) for size in sizes]
        return images, masks, [f"picture {'x' * place}" for place in range(count)]


class Nothing:
    """A list of nothing, as nodes that filter give it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "build", ("IMAGE", "MASK", "STRING", "CONDITIONING")
    OUTPUT_IS_LIST = (True, True, True, True)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def build(self):
        return [], [], [], []


class TinyText:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "build", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip": ("CLIP",), "text": ("STRING", {"forceInput": False})}}

    def build(self, clip, text):
        return (clip.encode_from_tokens_scheduled(clip.tokenize(text)),)


class ReadLora:
    """A LORA_MODEL from a file, as ComfyUI's own training gives one."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "build", ("LORA_MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"path": ("STRING",)}}

    def build(self, path):
        return (comfy.utils.load_torch_file(path),)


class Memory:
    """What this process takes: resident memory, and how many tensors Python knows."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "build", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {"default": 0})}}

    def build(self, number):
        import gc

        import psutil

        gc.collect()
        tensors = sum(isinstance(each, torch.Tensor) for each in gc.get_objects())
        return {"ui": {"rss": [psutil.Process().memory_info().rss], "tensors": [tensors],
                       "in_training": [comfy.model_management.in_training]}}  # fmt: skip


NODES = (TinyComfy, TinyWithoutLoader, WriteNetwork, MakeImages, Nothing, TinyText, ReadLora, Memory)
NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in NODES}

"""Models of a few thousand weights in ComfyUI's own classes, and nodes that give them: a node pack for tests.

ComfyUI loads this file as it loads any other pack. No checkpoint is so small, so these come from no file.
"""

import functools

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
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
        "cross_attn_norm": True, "eps": 1e-6, "in_dim": 16, "text_dim": 32, "dtype": torch.float32,
    }),
}  # fmt: skip
"""ComfyUI's class of each family, and a small network's settings."""


def make(family, dtype=torch.float32, disable_dynamic=True):
    """A MODEL, always with the same weights."""
    kind, config = CONFIGS[family]
    settings = getattr(comfy.supported_models, kind)(config)
    settings.unet_config = dict(config)
    settings.set_inference_dtype(dtype, None)
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
    patcher = comfy.model_patcher.ModelPatcher(
        model, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    )
    patcher.cached_patcher_init = (make, (family, dtype))
    return patcher


@functools.cache
def letters(family):
    return torch.randn(128, 32, generator=torch.Generator().manual_seed(1))


class Clip:
    """A text encoder that looks letters up in a table; as long as the text, where the family's are."""

    def __init__(self, family):
        self.family, self.patcher = family, None
        self.layer_idx = None
        table = torch.nn.Embedding(128, 32)
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


NODES = (TinyComfy, TinyWithoutLoader, MakeImages, Nothing, TinyText, Memory)
NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in NODES}

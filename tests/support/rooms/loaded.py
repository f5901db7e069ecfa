"""Parts of pretrained models loaded, and compared."""

import torch
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.recognise import inspect

NETWORK_FILE = "diffusion_pytorch_model.safetensors"


def equal(one, other):
    """Whether two networks have the same weights, bit for bit."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def parts(source, *names):
    info = inspect(source)
    return load_parts(source, info, names or ["vae", *info.kind.text_parts])


def network(source):
    return load_network(source, inspect(source), "cpu").network

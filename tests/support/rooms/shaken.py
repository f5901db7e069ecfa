"""Adapters as if they were trained, and what their network puts out."""

import torch


def output(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    width = model.network.config.cross_attention_dim
    text = torch.randn(2, 3, width, generator=generator)
    return model(x, torch.tensor([100.0, 900.0]), {"text": text})


def shake(model, name, seed=0):
    """Adapter weights as if they were trained."""
    generator = torch.Generator().manual_seed(seed)
    for key, weight in model.network.named_parameters():
        if name in key.split(".") and "magnitude" not in key:
            weight.data += 0.3 * torch.randn(weight.shape, generator=generator)

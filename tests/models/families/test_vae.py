"""Images to latents and back, with the VAE of a family."""

import pytest
import torch
from comfyui_rollout.models.families import vae as module
from comfyui_rollout.models.loading.load import load_parts
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source


@pytest.fixture
def family(tiny_pipeline):
    """``family("sd") -> (kind, vae)``; the VAE's tiles are 64 pixels."""

    def load(name):
        source = Source(str(tiny_pipeline(name)), storage="fp32")
        info = inspect(source)
        return info.kind, load_parts(source, info, ["vae"]).vae

    return load


def counting(monkeypatch, vae, part):
    """The sizes of what the encoder or the decoder of a VAE is asked for."""
    asked, forward = [], getattr(vae, part).forward
    monkeypatch.setattr(getattr(vae, part), "forward", lambda x: asked.append(tuple(x.shape[2:])) or forward(x))
    return asked


@pytest.mark.parametrize("name", ["sd", "flux"])
@torch.no_grad()
def test_large_images_go_through_the_vae_in_tiles(family, monkeypatch, name):
    """Above the limit never more than a tile at once, there and back; at it and below as ever, also afterwards."""
    kind, vae = family(name)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = kind.encode_images(vae, image)
    decoded = kind.decode_latents(vae, whole)
    encoder, decoder = (counting(monkeypatch, vae, part) for part in ("encoder", "decoder"))

    monkeypatch.setattr(module, "MOST_PIXELS", 128 * 128 - 1)
    tiled = kind.encode_images(vae, image)
    assert tiled.shape == whole.shape
    assert kind.decode_latents(vae, whole).shape == image.shape
    assert len(encoder) > 1
    assert max(encoder) == (64, 64)
    assert len(decoder) > 1
    assert max(decoder) == (8, 8)

    monkeypatch.setattr(module, "MOST_PIXELS", 128 * 128)
    assert torch.equal(kind.encode_images(vae, image), whole)
    assert torch.equal(kind.decode_latents(vae, whole), decoded)
    assert (encoder[-1], decoder[-1]) == ((128, 128), (16, 16))

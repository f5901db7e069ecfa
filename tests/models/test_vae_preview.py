"""Previews decoded by a VAE: what a sample would show, loaded only when somebody looks."""

import numpy as np
import pytest
import torch
from comfyui_rollout.data.data import DatasetInfo
from comfyui_rollout.diffusion.rollout import noisy_batch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.models import vae_preview
from comfyui_rollout.models.loading.load import load_parts
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.vae_preview import VaePreviews
from comfyui_rollout.runs.pictures.preview import (
    GAP,
    MARGIN,
    colours_of,
    picture_of_latents,
    picture_of_rollout,
    to_rgb,
)
from comfyui_rollout.training.stream import Run, Stream

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def wanted(tiny_pipeline):
    """``wanted(vae="vae", linear=None)``: previews of the tiny Stable Diffusion."""
    source = Source(str(tiny_pipeline("sd")), storage="fp32")
    pretrained = Pretrained(source, inspect(source))
    return lambda vae="vae", linear=None: VaePreviews(pretrained, vae, linear)


def run_with(previews):
    info = DatasetInfo("photos", 2, 4, None, family="sd", colours=previews)
    return Run(Stream(lambda step: None, about=info))


def test_latents_are_shown_as_the_vae_decodes_them(wanted):
    """Larger than the latents, item by item, and on the CPU."""
    previews = wanted()
    source, info = previews.pretrained.source, previews.pretrained.info
    with torch.no_grad():
        images = info.kind.decode_latents(load_parts(source, info, ["vae"]).vae, LATENTS)
    shown = to_rgb(LATENTS.requires_grad_(), colours_of(run_with(previews)))
    assert shown.shape == (2, 3, 64, 64)
    assert not shown.requires_grad
    torch.testing.assert_close(shown, (images / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


def test_nothing_is_loaded_until_somebody_looks(wanted, monkeypatch):
    """A run without watchers pays nothing, and the VAE is read once in a run."""
    loaded = []
    monkeypatch.setattr(vae_preview, "load_parts", lambda *given: loaded.append(given) or load_parts(*given))
    colours = colours_of(run_with(wanted()))
    assert not loaded
    picture_of_latents(LATENTS, colours=colours)
    picture_of_latents(LATENTS, colours=colours)
    assert len(loaded) == 1


def test_a_tiny_vae_does_it_quicker(wanted, tmp_path):
    """TAESD's own class, from a folder."""
    from diffusers import AutoencoderTiny

    channels = {"encoder_block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8)}
    tiny = AutoencoderTiny(num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1), **channels)
    tiny.save_pretrained(tmp_path)
    shown = to_rgb(LATENTS, colours_of(run_with(wanted(str(tmp_path)))))
    with torch.no_grad():
        images = tiny.decode(LATENTS).sample
    torch.testing.assert_close(shown, (images / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


def test_a_vae_that_is_not_there_is_one_line(wanted, tmp_path):
    """The input is named, and what to write instead."""
    with pytest.raises(ValueError, match=r"^previews: .*write vae, or leave it empty$"):
        to_rgb(LATENTS, colours_of(run_with(wanted(str(tmp_path)))))


def test_differences_are_shown_by_the_linear_map(wanted):
    """A difference of latents is nothing that a VAE knows: none is grey, at the size of the decoded pictures."""
    schedule, timestep = FlowMatching(), torch.full((2,), 500.0, dtype=torch.float64)
    batch = noisy_batch(LATENTS.detach(), torch.ones_like(LATENTS), timestep, schedule, {})
    sheet = np.asarray(picture_of_rollout(batch, colours_of(run_with(wanted(linear=torch.ones(5, 3))))))
    assert sheet.shape == (3 * 64 + 2 * GAP, MARGIN + 2 * 64 + GAP, 3)
    assert (sheet[-64:, -64:] == 128).all()

"""Live tiny models of every pretrained family, and batches for them."""

import numpy as np
import pytest
import torch
from comfyui_rollout.diffusion.rollout import noisy_batch
from comfyui_rollout.models.families.pretrained import CONTROL
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from PIL import Image

CAPTIONS = ["a cat", "two dogs", ""]


@pytest.fixture
def live(tiny_pipeline):
    """``live(family, **options) -> (model, info)``: the network of a tiny pipeline, in evaluation mode."""

    def load(family, storage="fp32", **options):
        source = Source(str(tiny_pipeline(family, **options)), storage=storage)
        info = inspect(source)
        model = load_network(source, info, "cpu")
        model.network.eval()
        return model, info

    return load


@pytest.fixture
def pictures(monkeypatch, tiny_pipelines):
    """``pictures(count)``: pictures to change, each of its own noise; pipelines make them small."""
    tiny_pipelines.small_pictures(monkeypatch)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 96, 64, 3), dtype=np.uint8)
    return lambda count: [Image.fromarray(pixels[number]) for number in range(count)]


@pytest.fixture
def told(tiny_pipeline, pictures):
    """``told(family, captions)``: what the network is told about images of 64 x 48 pixels with these captions.

    ``shown``: it is shown pictures to change; so are families that must be.
    """

    def encode(family, captions=CAPTIONS, shown=None, **options):
        source = Source(str(tiny_pipeline(family, **options)), storage="fp32")
        info = inspect(source)
        if info.classes:
            captions = ["cat", "dog", ""][: len(captions)]
        shown = info.kind.control == "must" if shown is None else shown
        pipeline = load_parts(source, info, info.kind.text_parts)
        conditioning = info.kind.encode_captions(pipeline, captions, pictures=pictures(len(captions)))
        if shown:
            shape = (len(captions), info.channels, 8, 6)
            conditioning[CONTROL] = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        size = info.kind.describe_size((100, 80), (4, 2), (64, 48))
        return conditioning | {name: value.expand(len(captions), -1) for name, value in size.items()}

    return encode


@pytest.fixture
def batch_of(live, told):
    """``batch_of(family, timesteps) -> (model, batch)``: a noisy batch of latents 8 high and 6 wide."""

    def make(family, timesteps=(300.0, 700.0, 150.0), captions=CAPTIONS, **options):
        model, info = live(family, **options)
        conditioning = {name: value[: len(timesteps)] for name, value in told(family, captions, **options).items()}
        generator, width = torch.Generator().manual_seed(3), 8 if info.classes else 6
        shape = (len(timesteps), info.channels, 8, width)
        latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
        levels = torch.tensor(timesteps, dtype=torch.float64)
        return model, noisy_batch(latents, noise, levels, info.schedule, conditioning)

    return make

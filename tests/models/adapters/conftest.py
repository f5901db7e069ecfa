"""Adapters on tiny networks of every family, with weights as if they were trained."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.models.adapters import network as adapters
from comfyui_rollout.models.adapters.layers import from_peft
from comfyui_rollout.models.adapters.names import names_of
from comfyui_rollout.models.families import PRETRAINED


def deltas(network, name="a"):
    """What the adapter adds to the weight of each layer."""
    return {
        layer: module.get_delta_weight(name).detach()
        for layer, module in network.named_modules()
        if name in getattr(module, "scaling", {})
    }


@pytest.fixture(scope="session")
def change():
    """``change(network)``: what its adapter adds to each layer."""
    return deltas


@pytest.fixture(scope="session")
def adapted():
    """``adapted(network, family, targets=..., **settings)``: an adapter on the network, its weights random."""

    def put(network, family, targets=None, **settings):
        model = PRETRAINED[family](network)
        names = names_of(type(network).__name__, network.config)
        if targets is None:
            targets = "|".join(map(re.escape, names.layers))
        settings = {"rank": 2, "alpha": 3.0, **settings}
        adapters.add_adapter(model, adapters.AdapterSettings("a", targets=targets, **settings), seed=0)
        generator = torch.Generator().manual_seed(1)
        for name, weight in network.named_parameters():
            if "a" in name.split(".") and "magnitude" not in name:
                weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
        weights = adapters.adapter_weights(model, "a")
        adapter = from_peft(weights, network.peft_config["a"].to_dict())
        return SimpleNamespace(model=model, network=network, names=names, adapter=adapter, part=model.network_part)

    return put


@pytest.fixture(scope="module")
def pipeline(tiny_pipelines, tmp_path_factory):
    """``pipeline(family)``: its live parts, with random weights, made once. Not to be changed."""
    made = {}

    def make(family):
        if family not in made:
            torch.manual_seed(0)
            made[family] = tiny_pipelines.MAKERS[family](tmp_path_factory.mktemp(family))
        return made[family]

    return make


@pytest.fixture
def trained(pipeline, adapted):
    """``trained(family, **settings)``: a copy of the family's network with a trained adapter."""

    def make(family, **settings):
        live = pipeline(family)
        made = adapted(copy.deepcopy(getattr(live, PRETRAINED[family].network_part)), family, **settings)
        made.pipeline = live
        return made

    return make


@pytest.fixture
def unet(tiny_pipelines):
    """``unet(dtype)``: Stable Diffusion's family on a tiny network."""

    def make(dtype=torch.float32):
        torch.manual_seed(0)
        return PRETRAINED["sd"](tiny_pipelines.unet().to(dtype))

    return make

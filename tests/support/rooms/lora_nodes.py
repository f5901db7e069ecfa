"""Add LoRA and Save LoRA as a person wires them, and adapters as if they were trained."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.encodings.encoders import PretrainedEncoders
from comfyui_rollout.models import saving
from comfyui_rollout.nodes import AddLora, LoadPretrained, SaveLora
from comfyui_rollout.nodes.models.model import trained_model
from comfyui_rollout.training.stream import Run, Stream

FORMATS = ("comfyui", "diffusers", "kohya")


@pytest.fixture
def base(wire, tiny_pipeline):
    """``base(family)``: the model that Load Pretrained gives."""

    def load(family="sd", **settings):
        return wire(LoadPretrained, path=str(tiny_pipeline(family)), **{"storage": "fp32", **settings})

    return load


@pytest.fixture
def adapt(wire):
    """``adapt(model, rank=2)``: the model behind Add LoRA."""
    return lambda model, **settings: wire(AddLora, model=model, **{"rank": 2, "alpha": 3.0, **settings})


def shake(model, seed=0):
    """Adapters as if they were trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.network.named_parameters():
        if any(part in model.adapters for part in name.split(".")):
            weight.data += 0.2 * torch.randn(weight.shape, generator=generator)


@pytest.fixture
def trained(tmp_path):
    """``trained(model)``: what Optimizer Step would give, without the training; and the live model."""

    def finish(model, number=0):
        live = Run(model).value(model)
        shake(live, number)
        run = tmp_path / f"run_{number}"
        saving.save_model(run / "model", live, None, {})
        (run / "run.json").write_text(json.dumps({"steps_done": 40, "seed": 7}))
        return SimpleNamespace(stream=trained_model(model, run / "model", "9", "Optimizer Step"), live=live, run=run)

    return finish


def loss_of(model):
    """A loss that needs no data set: the squared output on noise."""

    def loss(step, model):
        x = torch.randn(2, 4, 8, 8, generator=step.generator())
        text = torch.ones(2, 3, model.network.config.cross_attention_dim)
        return model(x, torch.tensor([100.0, 900.0]), {"text": text}).square().mean((1, 2, 3))

    return SimpleNamespace(loss=Stream(loss, {"model": model}, "loss", "Loss"), model=model)


@pytest.fixture
def fit(build, wire):
    """``fit(model)``: Optimizer Step on that loss; the stream it gives, and the run's folder."""

    def run(model, **options):
        wired = loss_of(model)
        optimizer = wire(nodes.Optimizer, learning_rate=0.01)
        inputs = {"loss": wired.loss, "model": model, "optimizer": optimizer, "steps": 2, **options}
        return build(nodes.OptimizerStep, **inputs)["result"]

    return run


@pytest.fixture
def save(build):
    """``save(stream)``: the one file that Save LoRA writes."""

    def write(stream, **inputs):
        (path,) = build(SaveLora, model=stream, **{"dtype": "fp32", **inputs})["ui"]["text"]
        return Path(path)

    return write


@pytest.fixture
def prompts(base):
    """``prompts(family)``: encoded captions and their size, as a data set gives them."""

    def encode(family):
        pretrained = base(family).about.pretrained
        with PretrainedEncoders(pretrained).text("cpu") as encode:
            told = encode(["ab", "c d"])
        sizes = pretrained.info.kind.describe_size((64, 64), (0, 0), (64, 64))
        return told | {name: value.repeat(2, 1) for name, value in sizes.items()}

    return encode


def output_of(model, told):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(x, torch.tensor([100.0, 900.0]), told)

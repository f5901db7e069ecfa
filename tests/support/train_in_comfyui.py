"""Run by ComfyUI's python: gradients and batches of hosted models of four families, measured in ComfyUI itself.

Answers with JSON on the last line: by family and by gradient checkpointing, how far gradients are off finite
differences, and how far a batch is off its items one by one.
"""

# ruff: noqa: E402  # ComfyUI reads the command line when it is imported

import json
import sys
from itertools import product

import comfy.options

comfy.options.enable_args_parsing()
families, sys.argv = sys.argv[1:], [sys.argv[0], "--cpu"]

import tiny_comfyui
import torch
from comfyui_rollout.hosts.comfyui_model import encode_text
from comfyui_rollout.models.hosted import TARGETS, HostedAdapter, HostedModel, HostedNetwork
from comfyui_rollout.models.ragged import collate
from comfyui_rollout.training.loop import training_mode


def network(family, kind="lora", **options):
    with torch.inference_mode():  # where ComfyUI makes it
        model = tiny_comfyui.make(family)
    with training_mode():
        made = HostedNetwork(HostedModel(model), HostedAdapter("a", kind, rank=4, alpha=4.0, **options), 0)
        made.prepare_training()
        generator = torch.Generator().manual_seed(4)
        for weight in made.trained.values():  # far from the zeros that they begin with
            weight.data = torch.randn(weight.shape, generator=generator) / max(weight.shape) ** 0.5
    return made


def inputs(made, family, texts):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(len(texts), made.hosted.facts.channels, 8, 8, generator=generator)
    timestep = torch.tensor([300.0, 700.0, 900.0])[: len(texts)]
    clip = tiny_comfyui.Clip(family)
    return x, timestep, collate([encode_text(clip, text) for text in texts])


def gradients(family, **options):
    """The worst relative error over some directions."""
    made = network(family, **options)
    x, timestep, told = inputs(made, family, ["a cat", "a dog!!"])
    weights = list(made.trained.values())
    look = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))

    def loss():
        return (made(x, timestep, told) * look).sum()

    with training_mode(), made.training():
        loss().backward()
    found = [weight.grad.clone() for weight in weights]
    generator = torch.Generator().manual_seed(7)
    length = sum(float(each.square().sum()) for each in found) ** 0.5
    directions = [[each / length for each in found]]
    for _ in range(3):  # mostly random, with enough of the gradient for it to be seen in float32
        noise = [torch.randn(each.shape, generator=generator) for each in found]
        size = sum(float(each.square().sum()) for each in noise) ** 0.5
        directions.append([0.5 * each / length + 0.5 * other / size for each, other in zip(found, noise, strict=True)])
    worst = 0.0
    for direction in directions:
        expected = sum(float((a.double() * b.double()).sum()) for a, b in zip(found, direction, strict=True))
        measured = difference(loss, weights, direction)
        worst = max(worst, abs(measured - expected) / abs(measured))
    return worst


def difference(loss, weights, direction, step=2e-2):
    """The derivative along a direction by the five-point formula."""

    def at(distance):
        for weight, change in zip(weights, direction, strict=True):
            weight.data.add_(change, alpha=distance)
        with torch.no_grad():
            value = float(loss().double())
        for weight, change in zip(weights, direction, strict=True):
            weight.data.sub_(change, alpha=distance)
        return value

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


@torch.no_grad()
def batches(family):
    """How far three items of texts of unequal length together are off the same one by one."""
    made = network(family)
    texts = ["", "a cat", "a long story of a cat"]
    x, timestep, told = inputs(made, family, texts)
    together = made(x, timestep, told)
    clip = tiny_comfyui.Clip(family)
    alone = torch.cat([
        made(x[i : i + 1], timestep[i : i + 1], encode_text(clip, text)) for i, text in enumerate(texts)
    ])  # fmt: skip
    return float((together - alone).abs().max() / alone.abs().max())


answers = {}
KINDS = {"sd": ("lora", "lokr", "loha")}
"""All kinds where there are convolutions; the network around them is no matter."""
for family in families:
    answers[family] = {"batch": batches(family)}
    for kind, checkpointing in product(KINDS.get(family, ("lora",)), (False, True)):
        answers[family][f"{kind} {checkpointing}"] = gradients(
            family, kind=kind, gradient_checkpointing=checkpointing, targets=TARGETS["all"]
        )
print(json.dumps(answers))

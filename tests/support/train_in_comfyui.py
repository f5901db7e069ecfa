"""Run by ComfyUI's python: gradients and batches of hosted models of four families, measured in ComfyUI itself.

Answers with JSON on the last line: by family and by gradient checkpointing, how far gradients are off finite
differences, and how far a batch is off its items one by one.
"""

# ruff: noqa: E402  # ComfyUI reads the command line when it is imported

import contextlib
import json
import sys
from functools import partial
from itertools import product

import comfy.options

comfy.options.enable_args_parsing()
families, sys.argv = sys.argv[1:], [sys.argv[0], "--cpu"]

import comfy.model_management
import comfy.quant_ops
import comfy.samplers
import tiny_comfyui
import torch
from comfyui_rollout.hosts.comfyui_model import conditioning_of, encode_text, layers_of, patched
from comfyui_rollout.models.hosted import TARGETS, HostedAdapter, HostedModel, HostedNetwork, schedule_of
from comfyui_rollout.models.ragged import collate
from comfyui_rollout.training.forward import training_mode


def network(family, kind="lora", model=None, **options):
    if model is None:
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


def lora_for(model):
    """A LoRA file for all layers of a MODEL, of no small effect."""
    generator, tensors = torch.Generator().manual_seed(8), {}
    for layer, (out, into, *kernel) in layers_of(model).items():
        down, up = torch.randn(2, into, *kernel, generator=generator), torch.randn(out, 2, generator=generator)
        tensors[f"diffusion_model.{layer}.lora_down.weight"] = down / down[0].numel() ** 0.5
        tensors[f"diffusion_model.{layer}.lora_up.weight"] = up.reshape(out, 2, *(1 for _ in kernel)) / 4
    return tensors


def as_sampled(family):
    """How far a new adapter's output is off what ComfyUI's sampler sees, for a MODEL with a LoRA on it."""
    with torch.inference_mode():
        plain = tiny_comfyui.make(family)
        model = patched(plain, lora_for(plain), 1.0)
    with training_mode():
        made = HostedNetwork(HostedModel(model, guidance=3.5), HostedAdapter("a", rank=4, alpha=4.0), 0)
    x, _, told = inputs(made, family, ["a cat"])
    schedule, timestep = schedule_of(made.hosted.facts), torch.tensor([600.0])
    alpha, sigma = (value.float() for value in schedule.coefficients(timestep))
    with torch.no_grad():
        mine = made(x, timestep, told)
    clean = x - sigma * mine if schedule.is_flow_matching else (x - sigma * mine) / alpha
    frames = (1,) if not made.live.is_spatial else ()
    scaled = (x if schedule.is_flow_matching else x / alpha).reshape(*x.shape[:2], *frames, *x.shape[2:])
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        model.pre_run()
        guider = comfy.samplers.CFGGuider(model)
        native = conditioning_of(encode_text(tiny_comfyui.Clip(family), "a cat"), guidance=3.5)
        guider.set_conds(native, native)
        guider.set_cfg(1.0)
        guider.inner_model = model.model
        guider.conds = comfy.samplers.process_conds(
            model.model, scaled, {k: [c.copy() for c in v] for k, v in guider.original_conds.items()}, x.device
        )
        level = sigma if schedule.is_flow_matching else sigma / alpha
        theirs = guider.predict_noise(scaled, level, model.model_options).reshape(clean.shape)
    return float((clean - theirs).abs().max() / theirs.abs().max())


def in_half(family):
    """Whether a network in bf16 trains an adapter in float32, and how far gradients are off those in float32."""
    with torch.inference_mode():
        model = tiny_comfyui.make(family, dtype=torch.bfloat16)
    found = []
    for made in (network(family), network(family, model=model)):
        x, timestep, told = inputs(made, family, ["a cat", "a dog!!"])
        with training_mode(), made.training():
            made(x, timestep, told).square().mean().backward()
        assert {weight.dtype for weight in made.trained.values()} == {torch.float32}
        found.append(torch.cat([weight.grad.flatten() for weight in made.trained.values()]))
    return float(torch.cosine_similarity(*found, dim=0))


def in_few_bits(family, format):
    """How far gradients are off those of the same network with plain weights of the same values."""
    return off(family, *(partial(make, family, format) for make in (tiny_comfyui.quantised, tiny_comfyui.dequantised)))


def off(family, *makers):
    """How far the gradients of one MODEL are off those of another."""
    found = []
    for make in makers:
        with torch.inference_mode():
            model = make()
        made = network(family, model=model, targets=TARGETS["all"])
        found.append(torch.cat([each.flatten() for each in gradient(made, family)[0]]))
    return float((found[0] - found[1]).norm() / found[1].norm())


def in_plain_fp8(family):
    """The same for weights in fp8 without a scale; ComfyUI computes with them in bf16."""
    return off(family, *(partial(make, family) for make in (tiny_comfyui.in_fp8, tiny_comfyui.as_in_fp8)))


def offloaded(family):
    """Whether a network whose weights stay off the device gives the same gradients to the bit, with a LoRA on the MODEL
    too, and after a sampler had all of it there; and how many of its layers are off in the end."""
    with torch.inference_mode():
        plain = tiny_comfyui.make(family)
        model = patched(plain, lora_for(plain), 1.0)
    whole = network(family, model=model, targets=TARGETS["all"])
    wanted, _ = gradient(whole, family)
    with as_on_a_card():
        parts = network(family, model=model, targets=TARGETS["all"], offloading=True)
        found, _ = gradient(parts, family)
        comfy.model_management.load_models_gpu([parts.live.patcher])  # as a sampler does
        assert not parts.live.model.model_lowvram
        again, _ = gradient(parts, family)
    off = [layer for layer in parts.live.model.modules() if hasattr(layer, "prev_comfy_cast_weights")]
    same = all(torch.equal(*pair) for each in (found, again) for pair in zip(each, wanted, strict=True))
    return {"same": same, "off": len(off)}


@contextlib.contextmanager
def as_on_a_card():
    """ComfyUI keeps weights as on a card of NVIDIA's."""
    management = comfy.model_management
    card = {"vram_state": management.VRAMState.NORMAL_VRAM, "is_device_cpu": lambda device: False}
    card["MIN_WEIGHT_MEMORY_RATIO"] = 0.0
    before = {name: getattr(management, name) for name in card}
    vars(management).update(card)
    try:
        yield
    finally:
        vars(management).update(before)


def gradient(made, family):
    """That of one training step on two items, and the weights under the adapter."""
    x, timestep, told = inputs(made, family, ["a cat", "a dog!!"])
    for weight in made.trained.values():
        weight.grad = None
    with training_mode(), made.training():
        made(x, timestep, told).square().mean().backward()
    return [weight.grad for weight in made.trained.values()], dict(made.live.model.state_dict())


def after_unloading(family):
    """Whether a step is the same to the bit after ComfyUI has taken weights off the device between two steps, and put
    the plain ones under a LoRA on the MODEL in their place."""
    with torch.inference_mode():
        plain = tiny_comfyui.make(family)
        model = patched(plain, lora_for(plain), 1.0)
    made = network(family, model=model)
    wanted, weights = gradient(made, family)
    weights = {name: weight.clone() for name, weight in weights.items()}
    made.live.patcher.partially_unload(torch.device("cpu"), 1e12)
    assert made.live.model.model_lowvram
    assert not all(torch.equal(weight, weights[name]) for name, weight in made.live.model.state_dict().items())
    found, again = gradient(made, family)
    assert not made.live.model.model_lowvram
    same = all(torch.equal(weight, weights[name]) for name, weight in again.items())
    return same and all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def refused(family, **changes):
    """What is said where ComfyUI's memory management does as ``changes`` say while a model is loaded."""
    before = {name: getattr(comfy.model_management, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(comfy.model_management, name, value)
        network(family)
    except ValueError as error:
        return str(error)
    finally:
        for name, value in before.items():
            setattr(comfy.model_management, name, value)
    return ""


def lacking(family):
    """What is said of a text that lacks what the network is told, as SDXL's does without its pooled output."""
    made = network(family)
    x, timestep, told = inputs(made, family, ["a cat"])
    read = made.live.model.extra_conds
    made.live.model.extra_conds = lambda **given: read(**{**given, "pooled_output": given["pooled"]})
    try:
        made(x, timestep, told)
    except ValueError as error:
        return str(error)
    return ""


def too_large(*models, **options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


answers = {}
KINDS = {"sd": ("lora", "lokr", "loha")}
"""All kinds where there are convolutions; the network around them is no matter."""
for family in families:
    answers[family] = {"batch": batches(family), "sampled": as_sampled(family), "half": in_half(family)}
    for kind, checkpointing in product(KINDS.get(family, ("lora",)), (False, True)):
        answers[family][f"{kind} {checkpointing}"] = gradients(
            family, kind=kind, gradient_checkpointing=checkpointing, targets=TARGETS["all"]
        )
answers["few bits"] = {format: in_few_bits("zimage", format) for format in comfy.quant_ops.QUANT_ALGOS}
answers["few bits"]["fp8"] = in_plain_fp8("zimage")
answers["offloaded"] = {family: offloaded(family) for family in ("flux", "sd")}
answers["memory"] = {
    "unloaded": after_unloading("flux"),
    "no_vram": refused("flux", vram_state=comfy.model_management.VRAMState.NO_VRAM, is_device_cpu=lambda device: False),
    "lacking": lacking("flux"),
    "too_large": refused("flux", load_models_gpu=too_large),
}
print(json.dumps(answers))

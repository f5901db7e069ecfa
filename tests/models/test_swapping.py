"""Blocks that wait in main memory: the same numbers, little on the device, for training and for rollouts."""

from itertools import pairwise

import pytest
import torch
from comfyui_rollout.diffusion.losses import per_item, target
from comfyui_rollout.diffusion.rollout import noisy_batch
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.models.adapters.network import add_adapter, merged_weights
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.swapping import check_swap, spread, swappable
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FAMILIES = sorted(PRETRAINED)


@pytest.fixture
def load(tiny_pipeline):
    """``load(family, swap, **options) -> (model, batch)``, with a LoRA, ready to be trained."""

    def make(family, swap, *, device="cpu", dora=False, **options):
        source = Source(
            str(tiny_pipeline(family)), **{"storage": "fp32", "gradient_checkpointing": True, **options}, swap=swap
        )
        info = inspect(source)
        captions = ["cat", "dog"] if info.classes else ["a", "b"]
        parts = load_parts(source, info, info.kind.text_parts)
        pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")] if info.kind.sees_control else ()
        told = info.kind.encode_captions(parts, captions, pictures=pictures)
        told |= {
            name: value.expand(2, -1) for name, value in info.kind.describe_size((64, 64), (0, 0), (64, 64)).items()
        }
        generator = torch.Generator().manual_seed(0)
        latents, noise = (torch.randn(2, info.channels, 8, 8, generator=generator) for _ in range(2))
        levels = torch.tensor([300.0, 800.0], dtype=torch.float64)
        model = load_network(source, info, device)
        add_adapter(model, AdapterSettings("new", rank=2, targets=model.lora_targets["attention"], dora=dora), seed=0)
        model.prepare_training()
        return model, noisy_batch(latents, noise, levels, info.schedule, told)

    return make


def trained(model, batch, steps=2):
    """Losses, outputs without gradient between the steps, and what became of the adapter."""
    optimizer, seen = torch.optim.AdamW(model.trained.values(), lr=1e-2), []
    for _ in range(steps):
        for _ in range(2):  # as a rollout's steps
            with torch.no_grad(), model.evaluating():
                seen.append(ask(model, batch.x, batch.timestep, batch.conditioning))
        losses = per_item((ask(model, batch.x, batch.timestep, batch.conditioning) - target(batch)).square())
        losses.mean().backward()
        seen.append(losses.detach())
        optimizer.step()
        optimizer.zero_grad()
    return [*seen, *(weight.detach() for weight in model.trained.values())]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_to_the_same_bits(load, family):
    """Losses, rollouts' forwards and the trained weights of two steps, with all blocks of every family swapped."""
    whole, swapped = load(family, 0), load(family, 1000)
    assert len(swapped[0].swap.blocks) == len(swappable(whole[0].network, whole[0].always_there)) > 0
    assert same(trained(*swapped), trained(*whole))


@pytest.mark.parametrize("options", [{"storage": "bf16"}, {"quantization": "int8"}, {"dora": True}], ids=str)
@pytest.mark.parametrize("swap", [1, 2, 4])
def test_kinds_of_weights(load, options, swap):
    """Weights in 16 and 8 bit come and go as they are, and DoRA finds the weights that it measures."""
    assert same(trained(*load("sd3", swap, **options)), trained(*load("sd3", 0, **options)))


class ApartFrom(TorchDispatchMode):
    """Refuses to compute with tensors of main memory and of the device together, as a real device does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = {
            value.device.type for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor) and value.ndim
        }
        if found == {"cpu", "meta"} and "copy" not in str(function):
            raise RuntimeError(f"{function} of two devices")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_device_sees_nothing_of_main_memory(load, family):
    """On another device (one without numbers) forward and backward meet only what is there; what waits stays."""
    model, batch = load(family, 1000, device="meta")
    assert model.device.type == next(model.network.parameters()).device.type == "meta"
    assert {weight.device.type for weight in model.trained.values()} == {"meta"}
    waiting = {name for name, weight in model.network.named_parameters() if weight.device.type == "cpu"}
    assert len(waiting) == sum(len(block.homes) for block in model.swap.blocks)
    model.to(torch.device("meta"))
    batch = noisy_batch(
        batch.latents.to("meta"), batch.noise.to("meta"), batch.timestep, batch.schedule,
        {name: value.to("meta") for name, value in batch.conditioning.items()},
    )  # fmt: skip
    try:
        with ApartFrom():
            losses = ask(model, batch.x, batch.timestep, batch.conditioning).square().mean()
            losses.backward()
    except RuntimeError as error:
        asks = ("unsupported scalarType", "without output_size")
        if not isinstance(error, NotImplementedError) and not any(words in str(error) for words in asks):
            raise
        pytest.skip(
            "this network asks its device for numbers, or switches autocast off there, and this one has neither"
        )
    assert {weight.grad.device.type for weight in model.trained.values() if weight.grad is not None} == {"meta"}
    assert {name for name, weight in model.network.named_parameters() if weight.device.type == "cpu"} == waiting


def test_blocks_are_fetched_once_a_pass(load):
    """And while the one before computes, from the second step on: nothing that is called has to be waited for."""
    model, batch = load("sd3", 1000)
    swap, log = model.swap, []
    begin, wait = swap.copying.begin, swap.copying.wait
    swap.copying.begin = lambda source, place: log.append("copy") or begin(source, place)
    swap.copying.wait = lambda place: log.append("call") or wait(place)
    trained(model, batch, 1)
    log.clear()
    trained(model, batch, 2)
    assert log.count("copy") <= log.count("call")
    assert all(pair != ("copy", "copy") for pair in pairwise(log))


def test_blocks_that_wait_are_spread():
    """Between two that are copied, one that stays computes, wherever there are enough."""
    assert spread(2, 4) == [1, 3]
    assert spread(3, 57) == [9, 28, 47]
    assert spread(9, 4) == [0, 1, 2, 3]
    for total in range(1, 30):
        for count in range(1, total + 1):
            places = spread(count, total)
            gaps = {after - before for before, after in pairwise(places)}
            assert len(set(places)) == count
            assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_merged_model_has_all_its_weights(load):
    """Save Model finds those that wait, with the adapter on top."""
    (whole, batch), (swapped, _) = load("sd3", 0), load("sd3", 2)
    for model in (whole, swapped):
        trained(model, batch, 1)
    one, other = merged_weights(whole), merged_weights(swapped)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_cannot_be_is_one_line(tiny_pipeline):
    """Without recomputing, with 4 bit, or where the blocks themselves are to be trained."""
    with pytest.raises(ValueError, match="gradient_checkpointing: swap needs it"):
        check_swap(1, "none", False)
    with pytest.raises(ValueError, match="quantize: nf4 does not go with swap"):
        check_swap(1, "nf4", True)
    check_swap(0, "nf4", False)
    source = Source(str(tiny_pipeline("sd3")), gradient_checkpointing=True, swap=1)
    with pytest.raises(ValueError, match="swap: blocks that wait cannot be trained"):
        load_network(source, inspect(source), "cpu").prepare_training()

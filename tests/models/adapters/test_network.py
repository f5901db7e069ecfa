"""Adapters in a live network: they begin as nothing, they alone are trained, and they come back from their files."""

import pytest
import torch
from comfyui_rollout.models import saving
from comfyui_rollout.models.adapters import network as adapters
from comfyui_rollout.models.adapters import saved
from comfyui_rollout.models.adapters.network import add_adapter, merged_weights
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.loading.load import load_network
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from shaken import output, shake
from torch import nn

KINDS = [{"kind": "lora"}, {"kind": "lora", "dora": True}, {"kind": "lokr"}, {"kind": "loha"}]
IDS = ["lora", "dora", "lokr", "loha"]


@pytest.mark.parametrize("settings", KINDS, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_an_adapter_begins_as_nothing(unet, settings, dtype):
    """The model is the pretrained one, to the bit, until the first step; also where it is sampled from."""
    model = unet(dtype)
    before = output(model)
    add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q", "to_k", "conv1"), **settings), seed=0)
    model.prepare_training()
    tolerance = {"atol": 0.0, "rtol": 0.0}
    if settings.get("dora"):  # it divides by the lengths of the weights' rows and multiplies again
        tolerance = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(output(model), before, **tolerance)
    with model.evaluating():
        torch.testing.assert_close(output(model), before, **tolerance)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient checkpointing"])
@pytest.mark.parametrize("settings", KINDS, ids=IDS)
def test_gradients_reach_the_adapter_alone(unet, settings, checkpointing):
    """Through a frozen base in 16 bits, whose inputs need no gradient, also where parts are computed twice."""
    model = unet(torch.bfloat16)
    if checkpointing:
        model.network.enable_gradient_checkpointing()
    add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q", "conv1"), **settings), seed=0)
    shake(model, "a")
    model.prepare_training()
    output(model).float().square().mean().backward()
    for name, weight in model.network.named_parameters():
        if "a" in name.split("."):
            assert weight.dtype == torch.float32
            assert weight.grad.abs().max() > 0, name
        else:
            assert weight.grad is None
            assert not weight.requires_grad


def test_gradient_checkpointing_changes_no_gradient(unet):
    """The same numbers at less memory."""
    found = []
    for checkpointing in (False, True):
        model = unet()
        if checkpointing:
            model.network.enable_gradient_checkpointing()
        add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q",)), seed=0)
        shake(model, "a")
        model.prepare_training()
        output(model).square().mean().backward()
        found.append({name: weight.grad for name, weight in model.trained.items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
def test_squeezed_weights_can_carry_an_adapter(tiny_pipeline, kind):
    """8 bit under a float32 adapter: it begins as nothing, and it alone is trained."""
    pytest.importorskip("torchao")
    source = Source(str(tiny_pipeline("sd")), quantization="int8")
    model = load_network(source, inspect(source), "cpu")
    before = output(model)
    add_adapter(model, AdapterSettings("a", kind, rank=2, targets=("to_q",)), seed=0)
    model.prepare_training()
    assert torch.equal(output(model), before)
    shake(model, "a")
    output(model).float().square().mean().backward()
    assert all(weight.grad.abs().max() > 0 for weight in model.trained.values())
    assert all("a" in name.split(".") for name in model.trained)


def test_several_adapters_are_all_active_and_trained(unet):
    """Adding the second must not switch off the first."""
    model = unet()
    add_adapter(model, AdapterSettings("a", rank=2, targets=("attn1.to_q",)), seed=0)
    add_adapter(model, AdapterSettings("b", "lokr", rank=2, targets=("attn2.to_q",)), seed=1)
    model.prepare_training()
    names = {part for name in model.trained for part in name.split(".")}
    assert {"a", "b"} <= names
    plain = output(model)
    shake(model, "a")
    with_a = output(model)
    shake(model, "b")
    assert not torch.equal(with_a, plain)
    assert not torch.equal(output(model), with_a)


def test_weights_are_fixed_by_the_seed(unet):
    """The same run twice starts from the same adapter."""
    models = [unet(), unet(), unet()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(len(models))
        add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q",)), seed=seed)
    first, same, other = (adapters.adapter_weights(model, "a") for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kinds", [("lora", "lora"), ("lora", "lokr"), ("loha", "lora")])
def test_two_adapters_share_a_layer(unet, kinds, tmp_path):
    """Of one kind or of two: the layer does what both say."""
    model = unet()
    for name, kind in zip("ab", kinds, strict=True):
        add_adapter(model, AdapterSettings(name, kind, rank=2, targets=("to_q",)), seed=0)
    model.prepare_training()
    plain = output(model)
    for name in "ab":
        shake(model, name)
        changed = output(model)
        assert not torch.equal(changed, plain), name
        plain = changed
    changed.square().mean().backward()
    assert all(weight.grad.abs().max() > 0 for weight in model.trained.values())
    with torch.no_grad():
        both = output(model)
    folder, back = saving.save_model(tmp_path / "model", model, None, {}), unet()
    for name, kind in zip("ab", kinds, strict=True):
        add_adapter(back, AdapterSettings(name, kind, rank=2, targets=("to_q",)), seed=1)
    assert torch.equal(output(saving.restore(back, folder)), both)
    (path, _) = saved.adapter_files(folder).values()
    assert all(layer.endswith("to_q") for layer in saved.read_saved(path))
    plain = unet()
    plain.network.load_state_dict(merged_weights(model))
    torch.testing.assert_close(output(plain), both, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", KINDS, ids=IDS)
def test_merged_weights_do_what_the_adapter_does(unet, settings):
    """A whole model without any adapter, by its own names."""
    model, plain = unet(), unet()
    add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q", "conv1"), **settings), seed=0)
    shake(model, "a")
    wanted = output(model)
    plain.network.load_state_dict(merged_weights(model))
    torch.testing.assert_close(output(plain), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("targets", [("nowhere",), "(nowhere"], ids=["no such layer", "no expression"])
def test_targets_that_fit_nothing_are_one_line(unet, targets):
    """peft's own message has several."""
    with pytest.raises(ValueError, match=r"^targets: [^\n]+$"):
        add_adapter(unet(), AdapterSettings("a", targets=targets), seed=0)


def test_trained_base_weights_are_float32(unet, tmp_path):
    """Full fine-tuning of a base kept in 16 bits: trained, saved and restored in 32, to the bit."""
    model = unet(torch.bfloat16)
    model.prepare_training()
    assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}
    with torch.no_grad():
        for weight in model.network.parameters():
            weight += 1e-4 * torch.randn_like(weight)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    back = saving.restore(unet(torch.bfloat16), folder)
    state, wanted = back.network.state_dict(), model.network.state_dict()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert isinstance(next(back.network.parameters()), nn.Parameter)

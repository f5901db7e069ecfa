"""Adapters in a live network: they begin as nothing, they alone are trained, and they come back from their files."""

import pytest
import torch
from comfyui_rollout.models import saving
from comfyui_rollout.models.adapters import network as adapters
from comfyui_rollout.models.adapters import saved
from comfyui_rollout.models.adapters.network import add_adapter, merged_weights
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.load import load_network
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from torch import nn

KINDS = [{"kind": "lora"}, {"kind": "lora", "dora": True}, {"kind": "lokr"}, {"kind": "loha"}]
IDS = ["lora", "dora", "lokr", "loha"]


@pytest.fixture
def unet(tiny_pipelines):
    """``unet(dtype)``: Stable Diffusion's family on a tiny network."""

    def make(dtype=torch.float32):
        torch.manual_seed(0)
        return PRETRAINED["sd"](tiny_pipelines.unet().to(dtype))

    return make


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


@pytest.mark.parametrize("several", [False, True], ids=["one", "two"])
def test_adapters_come_back_to_the_bit(unet, several, tmp_path):
    """From the folder of a run, each from its own file."""

    def make():
        model = unet()
        add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q",)), seed=0)
        if several:
            add_adapter(model, AdapterSettings("b", "loha", rank=2, targets=("to_v",)), seed=1)
        return model

    model = make()
    for name in model.adapters:
        shake(model, name)
    folder = saving.save_model(tmp_path / "model", model, None, {"workflow": "{}"})
    assert len(list(folder.glob("*.safetensors"))) == len(model.adapters)
    back = saving.restore(make(), folder)
    assert torch.equal(output(back), output(model))


def test_an_adapter_of_another_run_is_refused(unet, tmp_path):
    """Another name, or other ranks."""
    model = unet()
    add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q",)), seed=0)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    for name, rank, words in (
        ("b", 2, "there is no adapter 'b'"),
        ("a", 4, r"does not fit the adapter 'a': \d+ tensors"),
    ):
        other = unet()
        add_adapter(other, AdapterSettings(name, rank=rank, targets=("to_q",)), seed=0)
        with pytest.raises(ValueError, match=words):
            saving.restore(other, folder)


def test_what_was_saved_says_its_scale(unet, tmp_path):
    """rsLoRA too: the file's own settings are enough to use it."""
    model = unet()
    add_adapter(model, AdapterSettings("a", rank=4, alpha=6.0, rslora=True, targets=("to_q",)), seed=0)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    (path,) = saved.adapter_files(folder).values()
    assert {part.scale for part in saved.read_saved(path).values()} == {3.0}


@pytest.mark.parametrize("settings", KINDS, ids=IDS)
def test_merged_weights_do_what_the_adapter_does(unet, settings):
    """A whole model without any adapter, by its own names."""
    model, plain = unet(), unet()
    add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q", "conv1"), **settings), seed=0)
    shake(model, "a")
    wanted = output(model)
    plain.network.load_state_dict(merged_weights(model))
    torch.testing.assert_close(output(plain), wanted, atol=1e-5, rtol=1e-4)


def test_settings_that_do_not_go_together_are_refused():
    """Before anything is loaded."""
    with pytest.raises(ValueError, match="dora goes with kind lora only, not with lokr"):
        AdapterSettings("a", "lokr", dora=True)
    with pytest.raises(ValueError, match="rslora goes with kind lora only, not with loha"):
        AdapterSettings("a", "loha", rslora=True)
    with pytest.raises(ValueError, match="kind 'oft' is none of lora, lokr, loha"):
        AdapterSettings("a", "oft")


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

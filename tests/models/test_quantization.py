"""Frozen weights in 8 bit with an adapter on top; a library that is absent is one clear line."""

import pytest
import torch
from comfyui_rollout.diffusion.losses import per_item, target
from comfyui_rollout.diffusion.rollout import noisy_batch
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.models import quantization
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.quantization import check_installed
from safetensors.torch import load_file, save_file

FAMILIES = ["sd", "sd3", "flux"]


@pytest.fixture
def load(tiny_pipeline):
    """``load(family, **options) -> (model, batch)``"""

    def make(family, path=None, **options):
        source = Source(path or str(tiny_pipeline(family)), **{"storage": "fp32", "quantization": "int8", **options})
        info = inspect(source)
        told = info.kind.encode_captions(load_parts(source, info, info.kind.text_parts), ["a", "b"])
        generator = torch.Generator().manual_seed(0)
        latents, noise = (torch.randn(2, info.channels, 8, 8, generator=generator) for _ in range(2))
        levels = torch.tensor([300.0, 800.0], dtype=torch.float64)
        return load_network(source, info, "cpu"), noisy_batch(latents, noise, levels, info.schedule, told)

    return make


def quantised(model):
    return {name: weight for name, weight in model.network.named_parameters() if type(weight.data) is not torch.Tensor}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("storage", ["fp32", "bf16"])
def test_eight_bit_weights_answer_nearly_the_same(load, family, storage):
    """All large layers are squeezed, and the network still says what it said."""
    model, batch = load(family, storage=storage)
    exact, _ = load(family, quantization="none", storage=storage)
    assert len(quantised(model)) > 10
    assert not quantised(exact)
    with torch.no_grad():
        outputs = [ask(each, batch.x, batch.timestep, batch.conditioning) for each in (model, exact)]
    assert 0 < (outputs[0] - outputs[1]).abs().mean() < 0.05 * outputs[1].abs().mean()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("storage", ["fp32", "bf16"])
def test_only_the_adapter_is_trained(load, family, storage):
    """One step lowers the loss of its own batch, and the squeezed weights keep every bit."""
    model, batch = load(family, storage=storage)
    add_adapter(model, AdapterSettings("new", rank=4, targets=model.lora_targets["attention"]), 0)
    model.prepare_training()
    assert all("new" in name.split(".") and weight.dtype == torch.float32 for name, weight in model.trained.items())
    frozen = {
        name: weight.detach().clone() for name, weight in model.network.named_parameters() if name not in model.trained
    }
    optimizer = torch.optim.AdamW(model.trained.values(), lr=1e-3)
    losses = []
    for _ in range(4):
        losses.append(per_item((ask(model, batch.x, batch.timestep, batch.conditioning) - target(batch)) ** 2).mean())
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    for name, weight in model.network.named_parameters():
        if name in frozen:
            assert torch.equal(plain(weight), plain(frozen[name])), name
            assert weight.grad is None


def plain(weight):
    """The values of a weight, squeezed or not."""
    return weight.dequantize() if hasattr(weight, "qdata") else weight


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("adapted", [False, True])
def test_squeezed_layers_answer_in_the_storage_format(load, kind, adapted):
    """Also when they are asked in float32, as by a norm under autocast: or all activations take twice the memory."""
    model, _ = load("sd3", storage="bf16", quantization=kind)
    if adapted:
        add_adapter(model, AdapterSettings("new", rank=4, targets=model.lora_targets["attention"]), 0)
        model.prepare_training()
    layer = model.network.transformer_blocks[0].attn.to_q
    x = torch.randn(2, 5, layer.in_features, requires_grad=True)
    answer = layer(x)
    assert answer.dtype == torch.bfloat16
    answer.float().square().sum().backward()
    assert x.grad.abs().sum() > 0
    if adapted:
        assert layer.lora_B["new"].weight.grad.abs().sum() > 0


def test_float32_is_not_forced_on_anybody(load):
    """Weights that are stored in float32 are asked in what autocast says."""
    model, _ = load("sd3", storage="fp32")
    layer = model.network.transformer_blocks[0].attn.to_q
    assert layer(torch.randn(2, layer.in_features, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_autocast_trains_squeezed_layers_in_the_storage_format(load, monkeypatch):
    """With norms in float32, as CUDA's autocast has them, every squeezed layer answers in bf16 and adapters learn."""
    model, batch = load("sd3", storage="bf16")
    forward = torch.nn.LayerNorm.forward
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda self, x: forward(self, x).float())
    add_adapter(model, AdapterSettings("new", rank=4, targets=model.lora_targets["attention"]), 0)
    model.prepare_training()
    asked, seen = set(), set()
    for layer in model.network.modules():
        if isinstance(layer, torch.nn.Linear) and type(layer.weight.data) is not torch.Tensor:
            layer.register_forward_pre_hook(lambda _, inputs: asked.add(inputs[0].dtype), prepend=True)
            layer.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = per_item((ask(model, batch.x, batch.timestep, batch.conditioning) - target(batch)) ** 2).mean()
    loss.backward()
    assert torch.float32 in asked
    assert seen == {torch.bfloat16}
    assert any(weight.grad.abs().sum() > 0 for weight in model.trained.values())


def test_a_single_file_is_squeezed_too(load, tiny_pipeline, tmp_path):
    """Not silently left as it is: the answer is that of the squeezed folder."""
    path = tmp_path / "network.safetensors"
    save_file(load_file(tiny_pipeline("sd3") / "transformer" / "diffusion_pytorch_model.safetensors"), path)
    model, batch = load("sd3", str(path), base=str(tiny_pipeline("sd3")))
    folder, _ = load("sd3")
    assert quantised(model).keys() == quantised(folder).keys()
    with torch.no_grad():
        outputs = [ask(each, batch.x, batch.timestep, batch.conditioning) for each in (model, folder)]
    assert torch.equal(*outputs)


def test_squeezed_weights_cannot_be_trained_themselves(load):
    """Full fine-tuning of a squeezed network is refused, with the remedy."""
    model, _ = load("sd3")
    with pytest.raises(ValueError, match="quantised weights cannot be trained themselves: put an Add LoRA node"):
        model.prepare_training()


@pytest.mark.parametrize(("kind", "library"), [("int8", "torchao"), ("fp8", "torchao"), ("nf4", "bitsandbytes")])
def test_an_absent_library_is_named(monkeypatch, tiny_pipeline, kind, library):
    """Before anything is loaded, with what to do."""
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    line = f"quantize: {kind} needs {library}, which is not installed: pip install {library}, or choose none"
    with pytest.raises(ValueError, match=line):
        check_installed(kind)
    with pytest.raises(ValueError, match=line):
        inspect(Source(str(tiny_pipeline("sd")), quantization=kind))


def test_what_torchao_cannot_do_here_is_one_line(load, monkeypatch):
    """fp8 needs a card of its own; what torchao says is passed on, with a way out."""
    import torchao.quantization

    def fail(*_, **__):
        raise ImportError("Requires\n something")

    monkeypatch.setattr(torchao.quantization, "quantize_", fail)
    with pytest.raises(
        ValueError, match=r"quantize: fp8 does not work on cpu here \(Requires something\): choose int8"
    ):
        load("sd3", quantization="fp8")


def test_nothing_is_needed_for_nothing(monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    check_installed("none")

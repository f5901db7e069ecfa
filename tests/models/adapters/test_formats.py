"""Files in every format, as diffusers reads them."""

import copy

import pytest
import torch
from comfyui_rollout.files.weights import save_weights
from comfyui_rollout.models.adapters.formats import to_file, with_unit_scales
from comfyui_rollout.models.adapters.layers import DOWN, UP
from comfyui_rollout.models.adapters.names import names_of
from comfyui_rollout.models.adapters.network import continue_adapter
from comfyui_rollout.models.adapters.reading import from_file
from comfyui_rollout.models.adapters.saved import settings_metadata
from comfyui_rollout.models.adapters.settings import settings_of
from comfyui_rollout.models.families import PRETRAINED
from own_networks import READERS


def assert_same_change(found, wanted):
    assert found.keys() == wanted.keys()
    for layer in wanted:
        torch.testing.assert_close(found[layer], wanted[layer], atol=1e-6, rtol=1e-5, msg=layer)


def loaded_by_diffusers(made, format, tmp_path):
    """The pipeline with the file that we wrote, loaded as users do."""
    path = tmp_path / "lora" / "pytorch_lora_weights.safetensors"
    settings = settings_of(with_unit_scales(made.adapter), made.names.layers, "x").config().to_dict()
    about = settings_metadata({made.part: settings}) if format == "diffusers" else {}
    save_weights(path, to_file(made.adapter, format, made.names, made.part), about)
    pipeline = copy.deepcopy(made.pipeline)
    if not hasattr(pipeline, "load_lora_weights"):  # LongCat-Image's has no such door, and its network has
        network = getattr(pipeline, made.part)
        network.load_lora_adapter(path.parent, weight_name=path.name, prefix=made.part, adapter_name="b")
        return network
    pipeline.load_lora_weights(path.parent, adapter_name="b")
    return getattr(pipeline, made.part)


@pytest.mark.parametrize("preset", ["attention", "all"])
@pytest.mark.parametrize(
    ("family", "format"),
    [*((family, "diffusers") for family in READERS), ("sd", "kohya"), ("sdxl", "kohya"), ("flux", "comfyui")],
)
def test_diffusers_loads_the_very_change(trained, family, format, preset, tmp_path, change):
    """load_lora_weights gives W + alpha / rank * B A, in each format that this pipeline knows."""
    made = trained(family, targets=PRETRAINED[family].lora_targets[preset])
    assert_same_change(change(loaded_by_diffusers(made, format, tmp_path), "b"), change(made.network))


@pytest.mark.parametrize("settings", [{"dora": True}, {"rslora": True}], ids=["dora", "rslora"])
def test_diffusers_loads_dora_and_rslora(trained, settings, tmp_path):
    """The whole output is the same, which the change of the weights alone does not say for DoRA."""
    made = trained("sd", targets=("to_q", "conv1"), **settings)
    other = loaded_by_diffusers(made, "diffusers", tmp_path)
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 3, made.network.config.cross_attention_dim)
    with torch.no_grad():
        outputs = [network(x, torch.tensor([500]), text).sample for network in (made.network, other)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)


def test_diffusers_converts_kohyas_flux(adapted):
    """Its converter knows the real width only: one block of each kind, too large to be loaded in a test."""
    from diffusers import FluxPipeline

    config = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 128, "num_attention_heads": 24,
              "joint_attention_dim": 64, "pooled_projection_dim": 32, "in_channels": 64}  # fmt: skip
    names = names_of("FluxTransformer2DModel", config)
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer, (out, inputs) in names.layers.items():
        if "transformer_blocks" in layer:
            tensors[f"transformer.{layer}.lora_A.weight"] = torch.randn(2, inputs, generator=generator)
            tensors[f"transformer.{layer}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    adapter = from_file(tensors, names).adapter
    state = FluxPipeline.lora_state_dict(to_file(adapter, "kohya", names, "transformer"))
    back = from_file(state, names).adapter
    assert back.keys() == adapter.keys()
    for layer in adapter:
        x = torch.randn(names.layers[layer][1], generator=generator)
        first, second = (
            part.scale * (part.weights[UP] @ (part.weights[DOWN] @ x)) for part in (adapter[layer], back[layer])
        )
        torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-4, msg=layer)


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
def test_the_scale_of_a_diffusers_file_is_in_its_tensors(trained, kind, change):
    """alpha is in its metadata alone, which ComfyUI and others do not read: with none at all it is the same change."""
    made = trained("sd", targets=("to_q", "conv1"), kind=kind, rank=2, alpha=5.0)
    read = from_file(to_file(made.adapter, "diffusers", made.names, made.part), made.names).adapter
    other = PRETRAINED["sd"](copy.deepcopy(made.pipeline.unet))
    continue_adapter(other, read, made.names.layers, "a")
    assert_same_change(change(other.network), change(made.network))


@pytest.mark.parametrize("family", ["dit", "flux3"])
def test_a_format_that_nobody_reads_is_refused(trained, family):
    """A file whose keys no tool knows is loaded everywhere without a word, and does nothing."""
    made, kind = trained(family, targets=("to_q",)), PRETRAINED[family].network_class
    for format in ("comfyui", "kohya"):
        with pytest.raises(ValueError, match=rf"^format: no tool is known to read a LoRA of {kind} in it; choose diff"):
            to_file(made.adapter, format, made.names, made.part)

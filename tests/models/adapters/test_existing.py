"""Files that others made, found and read."""

import json

import pytest
import torch
from comfyui_rollout.files.weights import save_weights
from comfyui_rollout.hosts.host import Host
from comfyui_rollout.models.adapters.existing import find_lora, read_lora
from comfyui_rollout.models.adapters.formats import to_file
from comfyui_rollout.models.adapters.layers import DOWN, UP
from comfyui_rollout.models.adapters.settings import settings_of
from comfyui_rollout.models.families import PRETRAINED


@pytest.fixture
def made(tiny_pipelines, tmp_path, adapted):
    """``made(family, **settings)``: an adapter on a tiny network of that family."""

    def make(family="sd", **settings):
        torch.manual_seed(0)
        network = getattr(tiny_pipelines.MAKERS[family](tmp_path / family), PRETRAINED[family].network_part)
        return adapted(network, family, **settings)

    return make


@pytest.fixture
def host(tmp_path):
    host = Host()
    host.output_folder = tmp_path / "output"
    return host


def empty(path):
    save_weights(path, {"a": torch.zeros(1)}, {})
    return path


# Finding


def test_a_file_is_found_by_name_by_path_and_below_the_output(host, tmp_path):
    """As Save LoRA names it, from anywhere, and as the output folder shows it."""
    kept, other = empty(tmp_path / "output" / "loras" / "a.safetensors"), empty(tmp_path / "b.safetensors")
    assert find_lora(host, "a.safetensors") == kept
    assert find_lora(host, str(other)) == other
    assert find_lora(host, "loras/a.safetensors") == kept


def test_a_run_is_searched_for_its_model(host, tmp_path):
    """Its folder is enough where it has one adapter."""
    file = empty(tmp_path / "output" / "rollout" / "run_00001" / "model" / "pytorch_lora_weights.safetensors")
    assert find_lora(host, "rollout/run_00001") == file
    assert find_lora(host, str(file.parent)) == file
    empty(file.with_name("other.safetensors"))
    with pytest.raises(
        ValueError, match=r"holds other\.safetensors, pytorch_lora_weights\.safetensors: name one of them"
    ):
        find_lora(host, "rollout/run_00001")


def test_a_missing_file_is_named(host):
    """And where was looked for it."""
    with pytest.raises(ValueError, match="there is no LoRA file 'nowhere' in the loras folder"):
        find_lora(host, "nowhere")


# Reading


def test_pefts_own_folder_says_its_scale_beside(made, tmp_path):
    """adapter_config.json, as PeftModel.save_pretrained leaves it."""
    it = made(targets=("to_q",))
    tensors = {
        f"base_model.model.{layer}.{name}": value
        for layer, part in it.adapter.items()
        for name, value in part.weights.items()
    }
    path = tmp_path / "adapter_model.safetensors"
    save_weights(path, tensors, {})
    assert {part.scale for part in read_lora(path, it.names, PRETRAINED["sd"]).values()} == {1.0}
    config = settings_of(it.adapter, it.names.layers, "x").config().to_dict()
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": config["r"], "lora_alpha": config["lora_alpha"]}))
    assert {part.scale for part in read_lora(path, it.names, PRETRAINED["sd"]).values()} == {1.5}


@pytest.mark.parametrize("layer", ["attn1.to_q", "attn2.to_k", "conv1"])
def test_a_magnitude_for_each_input_is_refused(made, tmp_path, layer):
    """LyCORIS with wd_on_out off: taken for one of each output on square layers, it would be another adapter."""
    it = made(targets=(layer,), dora=True)
    tensors = to_file(it.adapter, "kohya", it.names, "unet")
    for key in [key for key in tensors if key.endswith(".dora_scale")]:
        inputs = tensors[key.replace("dora_scale", "lora_down.weight")].shape[1]
        tensors[key] = torch.ones(1, inputs, *[1] * (tensors[key].ndim - 2))
    path = tmp_path / "lycoris.safetensors"
    save_weights(path, tensors, {})
    with pytest.raises(
        ValueError, match=r"^lycoris\.safetensors cannot be continued: its DoRA has a magnitude for each"
    ):
        read_lora(path, it.names, PRETRAINED["sd"])


@pytest.mark.parametrize("alpha", [True, False])
def test_ai_toolkits_flux_files_are_read(made, tmp_path, alpha):
    """diffusers' names; without alpha the scale is 1."""
    it = made("flux", targets=("to_q", "proj_mlp"))
    tensors = to_file(it.adapter, "comfyui", it.names, "transformer")
    kept = {key: value for key, value in tensors.items() if alpha or not key.endswith(".alpha")}
    path = tmp_path / "a.safetensors"
    save_weights(path, kept, {})
    found = read_lora(path, it.names, PRETRAINED["flux"])
    assert found.keys() == it.adapter.keys()
    assert {part.scale for part in found.values()} == {1.5 if alpha else 1.0}


def test_what_our_names_do_not_cover_diffusers_converts(made, tmp_path):
    """XLabs' FLUX files, of which only diffusers' converter knows."""
    it = made("flux", targets=("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"))
    generator = torch.Generator().manual_seed(0)
    width = it.names.layers["transformer_blocks.0.attn.to_q"][0]
    down, up = torch.randn(2, width, generator=generator), torch.randn(3 * width, 2, generator=generator)
    path = tmp_path / "xlabs.safetensors"
    block = "double_blocks.0.processor"
    save_weights(path, {f"{block}.qkv_lora1.down.weight": down, f"{block}.qkv_lora1.up.weight": up}, {})
    found = read_lora(path, it.names, PRETRAINED["flux"])
    layers = [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]
    assert sorted(found) == sorted(layers)
    for layer, rows in zip(layers, up.chunk(3), strict=True):
        part = found[layer]
        torch.testing.assert_close(part.scale * part.weights[UP] @ part.weights[DOWN], rows @ down)


@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_lycoris_files_are_read(made, tmp_path, kind):
    """With the settings under which peft makes room for the very same matrices."""
    it = made(kind=kind, rank=2)
    path = tmp_path / "a.safetensors"
    save_weights(path, to_file(it.adapter, "kohya", it.names, "unet"), {})
    found = read_lora(path, it.names, PRETRAINED["sd"])
    settings = settings_of(found, it.names.layers, "b")
    assert settings.kind == kind
    assert settings.factor == -1


def test_a_file_for_text_encoders_alone_has_nothing_to_train(made, tmp_path):
    """They are not trained here."""
    path = tmp_path / "a.safetensors"
    save_weights(path, {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(2, 2)}, {})
    with pytest.raises(ValueError, match=r"a\.safetensors has no LoRA for the network in it"):
        read_lora(path, made(targets=("to_q",)).names, PRETRAINED["sd"])


def test_layers_of_another_width_are_counted(made, tmp_path):
    """The same names, another model: SD 2 on SD 1."""
    it = made(targets=("attn2.to_k",))
    tensors = to_file(it.adapter, "kohya", it.names, "unet")
    wider = {key: value.repeat(1, 2) if "down" in key.split(".")[-2] else value for key, value in tensors.items()}
    path = tmp_path / "a.safetensors"
    save_weights(path, wider, {})
    with pytest.raises(
        ValueError, match=rf"{len(it.adapter)} layers have another size there or are incomplete, e\.g\."
    ):
        read_lora(path, it.names, PRETRAINED["sd"])


def test_a_lokr_of_joined_layers_is_refused(made, tmp_path):
    """q, k and v are three layers here, and a Kronecker product of all is none of each."""
    it = made("flux", targets=("to_q",))
    width = it.names.layers["transformer_blocks.0.attn.to_q"][0]
    path, layer = tmp_path / "a.safetensors", "diffusion_model.double_blocks.0.img_attn.qkv"
    weights = {f"{layer}.lokr_w1": torch.ones(3, 1), f"{layer}.lokr_w2": torch.ones(width, width)}
    save_weights(path, weights, {})
    with pytest.raises(ValueError, match=r"^a\.safetensors cannot be continued: a LoKr of a layer that is several"):
        read_lora(path, it.names, PRETRAINED["flux"])

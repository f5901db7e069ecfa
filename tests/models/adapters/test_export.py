"""The adapter of a ComfyUI model as a file to take away."""

import pytest
import torch
from comfyui_rollout.files.weights import read_metadata, read_weights, save_weights
from comfyui_rollout.models.adapters.export import export_hosted
from comfyui_rollout.models.adapters.metadata import About

LORA = {
    "diffusion_model.blocks.0.attn.qkv.lora_up.weight": torch.randn(6, 2),
    "diffusion_model.blocks.0.attn.qkv.lora_down.weight": torch.randn(2, 3),
    "diffusion_model.blocks.0.attn.qkv.alpha": torch.tensor(4.0),
}
LOKR = {
    "diffusion_model.out.lokr_w1": torch.randn(2, 2),
    "diffusion_model.out.lokr_w2": torch.randn(3, 3),
    "diffusion_model.out.alpha": torch.tensor(1.0),
}


@pytest.fixture
def export(tmp_path):
    def export(tensors, format="comfyui", dtype=torch.float32):
        save_weights(tmp_path / "run.safetensors", tensors, {})
        path = tmp_path / "file.safetensors"
        export_hosted(
            tmp_path / "run.safetensors", path, format, dtype, "Wan", About("mine"), {"steps": 7}, {"workflow": "{}"}
        )
        return read_weights(path), read_metadata(path)

    return export


@pytest.mark.parametrize("tensors", [LORA, LOKR], ids=["lora", "lokr"])
def test_comfyui_s_names_are_kept(export, tensors):
    """They are those of the run, to the bit."""
    found, _ = export(tensors)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_kohya_s_names_have_underscores(export):
    """The layer's path in one word, the weights' names as they are."""
    found, _ = export(LORA, "kohya", torch.float16)
    layer = "lora_unet_blocks_0_attn_qkv"
    assert set(found) == {f"{layer}.lora_up.weight", f"{layer}.lora_down.weight", f"{layer}.alpha"}
    assert {value.dtype for value in found.values()} == {torch.float16}


def test_a_file_says_what_it_is(export):
    """Rank, alpha, family, and what the run and the workflow add."""
    _, facts = export(LORA)
    assert (facts["ss_network_dim"], facts["ss_network_alpha"], facts["ss_steps"]) == ("2", "4.0", "7")
    assert facts["modelspec.architecture"] == "Wan/lora"
    assert facts["workflow"] == "{}"
    _, facts = export(LOKR)
    assert facts["ss_network_args"] == '{"algo": "lokr"}'


def test_diffusers_names_are_not_known(export):
    """One line that says what to choose."""
    with pytest.raises(ValueError, match="format: diffusers' names are not known for a ComfyUI model; choose comfyui"):
        export(LORA, "diffusers")

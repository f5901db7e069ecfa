"""What a file says about itself."""

import hashlib

import pytest
import torch
from comfyui_rollout.files.weights import read_metadata, save_weights
from comfyui_rollout.models.adapters.layers import DOWN, UP, LayerAdapter
from comfyui_rollout.models.adapters.metadata import About, Base, architecture, hashes, kohya_fields, modelspec

SD1, SDXL = Base("sd", {"cross_attention_dim": 768, "sample_size": 64}), Base("sdxl", {"sample_size": 128})


def lora(rank=4, scale=0.5):
    return LayerAdapter({DOWN: torch.zeros(rank, 3), UP: torch.zeros(3, rank)}, scale)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (SD1, "stable-diffusion-v1"),
        (Base("sd", {"cross_attention_dim": 1024}), "stable-diffusion-v2-512"),
        (Base("sd", {"cross_attention_dim": 1024}, prediction="v_prediction"), "stable-diffusion-v2-768-v"),
        (SDXL, "stable-diffusion-xl-v1-base"),
        (Base("sd3", {"num_layers": 24}), "stable-diffusion-3-medium"),
        (Base("sd3", {"num_layers": 38}), "stable-diffusion-3.5-large"),
        (Base("sd3", {"num_layers": 24, "dual_attention_layers": [0, 1]}), "stable-diffusion-3.5-medium"),
        (Base("flux", {"guidance_embeds": True}), "flux-1-dev"),
        (Base("flux", {"guidance_embeds": False}), "flux-1-schnell"),
        (Base("lumina2", {}), "lumina-2"),
        (Base("dit", {}), "dit"),
    ],
)
def test_architectures_have_their_modelspec_names(base, name):
    """Model managers sort by them."""
    assert architecture(base) == name


def test_modelspec_has_what_it_must_and_no_empty_words():
    """sai_model_spec, architecture, implementation, title and resolution are required."""
    fields = modelspec(SD1, About("mine", trigger="sks"), is_lora=True, by_diffusers=False)
    assert fields["modelspec.sai_model_spec"] == "1.0.1"
    assert fields["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert fields["modelspec.implementation"].startswith("https://")
    assert fields["modelspec.title"] == "mine"
    assert fields["modelspec.resolution"] == "512x512"
    assert fields["modelspec.trigger_phrase"] == "sks"
    assert "modelspec.author" not in fields
    assert all(isinstance(value, str) and value for value in fields.values())
    own = modelspec(SDXL, About("mine"), is_lora=False, by_diffusers=True)
    assert own["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert own["modelspec.implementation"] == "diffusers"
    assert own["modelspec.resolution"] == "1024x1024"


def test_kohyas_fields_are_words():
    """The block that sd-scripts needs at the least, and what was done."""
    run = {"steps": 100, "seed": 7, "learning_rate": 1e-4}
    fields = kohya_fields(SDXL, About("mine"), {"a": lora(), "b": lora()}, run)
    assert fields["ss_v2"] == "False"
    assert fields["ss_base_model_version"] == "sdxl_base_v1-0"
    assert (fields["ss_network_module"], fields["ss_network_dim"], fields["ss_network_alpha"]) == (
        "networks.lora", "4", "2.0",
    )  # fmt: skip
    assert (fields["ss_steps"], fields["ss_seed"], fields["ss_learning_rate"]) == ("100", "7", "0.0001")
    assert fields["ss_output_name"] == "mine"
    assert kohya_fields(SDXL, About("x"), {"a": lora(), "b": lora(8)}, {})["ss_network_dim"] == "Dynamic"


def test_the_hash_is_that_of_the_bytes_behind_the_header(tmp_path):
    """As modelspec says: whatever metadata are added later, the hash stays."""
    tensors = {"b": torch.arange(6.0), "a": torch.ones(2, 3, dtype=torch.float16)}
    found = hashes(tensors, {"ss_steps": "1"})
    path = tmp_path / "a.safetensors"
    save_weights(path, tensors, {**found, "more": "words"})
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert read_metadata(path)["sshs_model_hash"] == hashlib.sha256(content[start:]).hexdigest()
    assert found["modelspec.hash_sha256"] == f"0x{found['sshs_model_hash']}"
    assert len(found["sshs_legacy_hash"]) == 8

"""The model and its adapter, from a configuration."""

import pytest
from brought_over import at_least, inputs, small
from comfyui_rollout.importing.simpletuner import Files, import_config


@pytest.mark.parametrize(
    ("family", "flavour", "path"),
    [
        ("flux2", None, "black-forest-labs/FLUX.2-klein-base-9B"),
        ("flux2", "dev", "black-forest-labs/FLUX.2-dev"),
        ("flux", "kontext", "black-forest-labs/FLUX.1-Kontext-dev"),
        ("qwen_image", "edit-v2", "Qwen/Qwen-Image-Edit-2509"),
        ("z_image", "turbo", "Tongyi-MAI/Z-Image-Turbo"),
        ("krea2", "raw", "krea/Krea-2-Raw"),
        ("wan", None, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("ideogram", "fp8", "CalamitousFelicitousness/Ideogram-4-bf16-Diffusers"),
        ("anima", "base-v1.0", "circlestone-labs/Anima-Base-v1.0-Diffusers"),
        ("ernie", None, "baidu/ERNIE-Image"),
        ("hidream", "full", "HiDream-ai/HiDream-I1-Full"),
    ],
)
def test_newer_families_have_their_models(family, flavour, path):
    """Each flavour its own, and the family's default where none is named."""
    imported = small(model_family=family, model_flavour=flavour)
    assert inputs(imported, "LoadPretrained")["path"] == path


def test_perceptrons_of_ideogram_are_trained_too():
    """So it is there unless somebody names layers; other families have adapters on attention."""
    assert inputs(small(model_family="ideogram", model_type="lora"), "AddLora")["targets"] == "all"
    assert inputs(small(model_family="anima", model_type="lora"), "AddLora")["targets"] == "attention"
    named = small(model_family="ideogram", model_type="lora", peft_lora_target_modules=["attention.to_q"])
    assert inputs(named, "AddLora")["pattern"] == "attention.to_q"


def test_another_network():
    """A file with the network alone goes into path, and the model that it belongs to becomes base."""
    for key in ("pretrained_transformer_model_name_or_path", "pretrained_unet_model_name_or_path"):
        found = inputs(small(pretrained_model_name_or_path="me/flux", **{key: "mine.safetensors"}), "LoadPretrained")
        at_least(found, path="mine.safetensors", base="me/flux")
        folder = small(pretrained_model_name_or_path="me/flux", **{key: "me/network"})
        at_least(inputs(folder, "LoadPretrained"), path="me/flux", base="")
        assert any("'me/network' is no .safetensors file" in line for line in folder.report.left)


def test_another_vae(home):
    """One that is here is used; for one that would have to be fetched, the model's own, and that is said."""
    (home / "vae.safetensors").touch()
    assert (
        inputs(small(pretrained_vae_model_name_or_path="vae.safetensors"), "LoadPretrained")["vae"] == "vae.safetensors"
    )
    far = small(pretrained_vae_model_name_or_path="madebyollin/sdxl-vae-fp16-fix")
    assert inputs(far, "LoadPretrained")["vae"] == ""
    assert any("'madebyollin/sdxl-vae-fp16-fix' is no file" in line for line in far.report.changed)


@pytest.mark.parametrize(
    ("precision", "ours"),
    [
        ("no_change", "none"),
        ("int8-torchao", "int8"),
        ("int4-torchao", "nf4"),
        ("uint4-sdnq", "nf4"),
        ("fp8wo-torchao", "fp8"),
        ("nf4-bnb", "nf4"),
    ],
)
def test_precisions(precision, ours):
    """By what the number format is called, whoever makes it."""
    assert inputs(small(base_model_precision=precision), "LoadPretrained")["quantize"] == ours


@pytest.mark.parametrize(
    ("kept", "mixed", "ours"),
    [
        ("bf16", "bf16", "bf16"),
        ("bf16", "fp16", "fp16"),
        ("bf16", "no", "bf16"),
        ("fp16", "no", "fp16"),
        ("fp16", "bf16", "bf16"),
        ("fp32", "fp16", "fp32"),
        ("bf16", "fp8", "bf16"),
    ],
)
def test_storage_goes_with_precision(kept, mixed, ours):
    """Optimizer Step refuses bf16 with fp16."""
    imported = small(base_model_default_dtype=kept, mixed_precision=mixed)
    storage, precision = inputs(imported, "LoadPretrained")["storage"], inputs(imported, "OptimizerStep")["precision"]
    assert storage == ours
    assert {storage, precision} != {"bf16", "fp16"}


def test_squeezed_weights_are_checkpointed():
    """Load Pretrained refuses them otherwise; whole ones are left as the user had them."""
    for precision, ours in (("int8-torchao", True), ("nf4-bnb", False), ("no_change", False)):
        imported = small(base_model_precision=precision, gradient_checkpointing=False)
        assert inputs(imported, "LoadPretrained")["gradient_checkpointing"] is ours
        assert any(line.startswith("gradient_checkpointing: it is on") for line in imported.report.changed) is ours


def test_lora_layers():
    """A list of layers, as JSON or as a text, and FLUX' named choices."""
    for layers in (["to_q", "to_k"], '["to_q", "to_k"]'):
        at_least(inputs(small(peft_lora_target_modules=layers), "AddLora"), targets="custom", pattern="to_q, to_k")
    context = inputs(small(flux_lora_target="context"), "AddLora")
    at_least(context, targets="custom", pattern="add_k_proj, add_q_proj, add_v_proj, to_add_out")
    whole = import_config(
        Files({"model_family": "flux", "model_type": "lora", "lora_type": "lycoris"}, (), {"full_matrix": True})
    )
    at_least(inputs(whole, "AddLora"), kind="lokr", rank=4096, alpha=4096.0)


def test_lycoris_presets():
    """Attention and FeedForward by their layers, the factor as it is; what cannot be had is said."""
    lokr = {"algo": "lokr", "factor": 16, "apply_preset": {"target_module": ["Attention", "FeedForward"]}}

    def added(lycoris, family="sdxl"):
        config = {"model_family": family, "model_type": "lora", "lora_type": "lycoris", "max_train_steps": 5}
        imported = import_config(Files(config, (), lycoris))
        return inputs(imported, "AddLora"), imported.report.changed

    found, said = added(lokr)
    layers = "to_q, to_k, to_v, to_out.0, ff.net.0.proj, ff.net.2"
    at_least(found, kind="lokr", factor=16, targets="custom", pattern=layers)
    assert not any("lycoris_config" in line for line in said)
    at_least(added(lokr | {"apply_preset": {"target_module": ["Attention"]}})[0], targets="attention", factor=16)
    only = added(lokr | {"apply_preset": {"target_module": ["FeedForward"]}}, "sd3")[0]
    at_least(only, targets="custom", pattern="ff.net.0.proj, ff.net.2")
    apart = {"target_module": ["Attention", "ResnetBlock2D"], "module_algo_map": {"Attention": {"factor": 8}}}
    _, said = added(lokr | {"apply_preset": apart})
    assert any("the modules ResnetBlock2D are not known" in line for line in said)
    assert any("module_algo_map" in line for line in said)


@pytest.mark.parametrize(
    ("family", "flavour", "model"),
    [
        ("sd1x", "dreamshaper", "Lykon/dreamshaper-8"),
        ("sd2x", "pseudoflex-v2", "bghira/pseudo-flex-v2"),
        ("flux", "libreflux", "jimmycarter/LibreFlux-SimpleTuner"),
        ("lumina2", "neta-lumina", "terminusresearch/neta-lumina-v1"),
    ],
)
def test_flavours(family, flavour, model):
    """All of SimpleTuner's that can be trained here, its defaults under their names too."""
    imported = small(model_family=family, model_flavour=flavour)
    assert inputs(imported, "LoadPretrained")["path"] == model
    assert not imported.report.left


def test_text_encoders_are_trained_too():
    """Where we can; else it is said."""
    config = {"train_text_encoder": True, "lora_dropout": 0}
    assert inputs(small(model_family="sdxl", **config), "AddLora")["text_encoders"] is True
    flux = small(model_family="flux", **config)
    assert inputs(flux, "AddLora")["text_encoders"] is False
    assert any(line.startswith("train_text_encoder: ") for line in flux.report.changed)

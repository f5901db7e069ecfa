"""Files in every format: read by diffusers, read again by us, and in the spellings of other tools."""

import copy

import pytest
import torch
from comfyui_rollout.files.weights import save_weights
from comfyui_rollout.models.adapters.formats import to_file, with_unit_scales
from comfyui_rollout.models.adapters.layers import DOWN, UP, rescaled, to_peft
from comfyui_rollout.models.adapters.names import names_of
from comfyui_rollout.models.adapters.network import continue_adapter
from comfyui_rollout.models.adapters.reading import from_file
from comfyui_rollout.models.adapters.saved import settings_metadata
from comfyui_rollout.models.adapters.settings import settings_of
from comfyui_rollout.models.families import PRETRAINED
from own_networks import READERS


@pytest.fixture(scope="module")
def pipeline(tiny_pipelines, tmp_path_factory):
    """``pipeline(family)``: its live parts, with random weights, made once. Not to be changed."""
    made = {}

    def make(family):
        if family not in made:
            torch.manual_seed(0)
            made[family] = tiny_pipelines.MAKERS[family](tmp_path_factory.mktemp(family))
        return made[family]

    return make


@pytest.fixture
def trained(pipeline, adapted):
    """``trained(family, **settings)``: a copy of the family's network with a trained adapter."""

    def make(family, **settings):
        live = pipeline(family)
        made = adapted(copy.deepcopy(getattr(live, PRETRAINED[family].network_part)), family, **settings)
        made.pipeline = live
        return made

    return make


def assert_same_change(found, wanted):
    assert found.keys() == wanted.keys()
    for layer in wanted:
        torch.testing.assert_close(found[layer], wanted[layer], atol=1e-6, rtol=1e-5, msg=layer)


# diffusers' own loader


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


def test_a_format_that_nobody_reads_is_refused(trained):
    """A file whose keys no tool knows is loaded everywhere without a word, and does nothing."""
    made = trained("dit", targets=("to_q",))
    for format in ("comfyui", "kohya"):
        with pytest.raises(ValueError, match=r"^format: no tool is known to read a LoRA of DiTTransformer2DModel"):
            to_file(made.adapter, format, made.names, made.part)


# Our own reader


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
@pytest.mark.parametrize("format", ["diffusers", "comfyui", "kohya"])
@pytest.mark.parametrize("family", READERS)
def test_what_we_write_we_read(trained, family, format, kind):
    """Every layer of every family: the same tensors come back, joined or not."""
    made = trained(family, kind=kind)
    if family in ("lumina2", "ideogram4") and kind == "lokr" and format != "diffusers":
        with pytest.raises(ValueError, match="LoKr of 3 layers cannot be said in this file"):
            to_file(made.adapter, format, made.names, made.part)
        return
    found = from_file(to_file(made.adapter, format, made.names, made.part), made.names)
    assert (found.unknown, found.misfits) == ([], ())
    assert found.adapter.keys() == made.adapter.keys()
    for layer, part in made.adapter.items():
        back = found.adapter[layer]
        part = rescaled(part, 1.0) if format == "diffusers" else part
        if kind != "lokr":
            assert back.scale == pytest.approx(part.scale)
            assert all(torch.equal(back.weights[name], part.weights[name]) for name in part.weights), layer
        assert back.weights.keys() == part.weights.keys()


@pytest.mark.parametrize("format", ["diffusers", "comfyui", "kohya"])
@pytest.mark.parametrize("family", READERS)
def test_dora_is_read_again(trained, family, format):
    """Lengths of weight vectors, of matrices and convolutions, alone and joined."""
    made = trained(family, targets=PRETRAINED[family].lora_targets["all"], dora=True)
    back = to_peft(from_file(to_file(made.adapter, format, made.names, made.part), made.names).adapter)
    wanted = to_peft(with_unit_scales(made.adapter) if format == "diffusers" else made.adapter)
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[key], wanted[key]) for key in wanted)


SPELLINGS = {
    "diffusers": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "peft in a pipeline": ("unet.base_model.model.{}.lora_A.weight", "unet.base_model.model.{}.lora_B.weight"),
    "older diffusers": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    "oldest diffusers": ("unet.{processor}_lora.down.weight", "unet.{processor}_lora.up.weight"),
    "a network alone": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "with an adapter's name": ("{}.lora_A.default.weight", "{}.lora_B.default.weight"),
    "kohya": ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight"),
    "lycoris": ("lycoris_{flat}.lora_down.weight", "lycoris_{flat}.lora_up.weight"),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_other_peoples_spellings_are_read(trained, spelling):
    """The same adapter, whoever wrote it."""
    made = trained("sd", targets=PRETRAINED["sd"].lora_targets["attention"])
    tensors = {}
    for layer, part in made.adapter.items():
        before, _, last = layer.removesuffix(".0").rpartition(".")
        words = {"flat": layer.replace(".", "_"), "processor": f"{before}.processor.{last}"}
        for name, pattern in zip((DOWN, UP), spelling, strict=True):
            tensors[pattern.format(layer, **words)] = part.weights[name]
    found = from_file(tensors, made.names, {"r": 2, "lora_alpha": 3})
    assert found.unknown == []
    back, wanted = to_peft(found.adapter), to_peft(made.adapter)
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[key], wanted[key]) for key in wanted)
    assert {part.scale for part in found.adapter.values()} == {1.5}


def test_alpha_in_the_file_wins(trained):
    """kohya's alpha is per layer; without one, and without settings, the scale is 1."""
    made = trained("sd", targets=("to_q",))
    tensors = to_file(made.adapter, "kohya", made.names, "unet")
    first = next(key for key in tensors if key.endswith(".alpha"))
    tensors[first] = torch.tensor(8.0)
    scales = sorted({part.scale for part in from_file(tensors, made.names, {"r": 2, "lora_alpha": 1}).adapter.values()})
    assert scales == [1.5, 4.0]
    bare = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    assert {part.scale for part in from_file(bare, made.names).adapter.values()} == {1.0}


def test_a_matrix_is_read_for_a_small_convolution(trained):
    """SD 1.x has 1x1 convolutions where SDXL has matrices, and tools write both."""
    made = trained("sd", targets=("proj_in",))
    tensors = to_file(made.adapter, "kohya", made.names, "unet")
    flat = {key: value.flatten(1) if value.ndim == 4 else value for key, value in tensors.items()}
    found = to_peft(from_file(flat, made.names).adapter)
    assert all(torch.equal(found[key], value) for key, value in to_peft(made.adapter).items())


def test_what_does_not_fit_is_counted(trained):
    """Keys of other models, of text encoders, of other sizes and halves of a pair."""
    made = trained("sd", targets=("attn1.to_q",))
    tensors = to_file(made.adapter, "kohya", made.names, "unet")
    first, second, *_ = [key for key in tensors if key.endswith("lora_down.weight")]
    tensors["lora_unet_double_blocks_0_img_mod_lin.lora_down.weight"] = torch.zeros(2, 2)
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"] = torch.tensor(1.0)
    tensors[first] = torch.zeros(2, 5)
    del tensors[second]
    found = from_file(tensors, made.names)
    assert found.unknown == ["lora_unet_double_blocks_0_img_mod_lin.lora_down.weight"]
    assert found.text_encoders == 1
    assert len(found.misfits) == 2
    assert len(found.adapter) == len(made.adapter) - 2

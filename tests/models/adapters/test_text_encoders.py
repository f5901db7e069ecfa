"""Text encoders that are trained along with their network: what it is told, what is learnt, and what others load."""

import pytest
import torch
from comfyui_rollout.files import weights
from comfyui_rollout.models import saving
from comfyui_rollout.models.adapters.existing import read_lora, text_tensors_in
from comfyui_rollout.models.adapters.formats import to_file
from comfyui_rollout.models.adapters.layers import to_peft
from comfyui_rollout.models.adapters.names import names_in
from comfyui_rollout.models.adapters.network import add_adapter, merged_weights
from comfyui_rollout.models.adapters.saved import read_saved
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.adapters.text_encoders import ATTACHED, TARGETS, attach_text_encoders
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import encoders_of, inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.runs.prompt_sampling import SamplingSettings, encode_prompts, sample_prompts, sampling_pipeline

FAMILIES = sorted(family for family, kind in PRETRAINED.items() if kind.trainable_text_parts)
CAPTIONS = ["", "ab", "a caption that is much too long for the tokenizer"]


@pytest.fixture
def pretrained(tiny_pipeline):
    """``pretrained(family, storage=...)``: a tiny pipeline on a wire."""

    def wire(family, **options):
        source = Source(str(tiny_pipeline(family)), **{"storage": "fp32", **options})
        return Pretrained(source, inspect(source))

    return wire


@pytest.fixture
def whole(pretrained):
    """``whole(family)``: diffusers' pipeline with all its parts."""

    def load(family, **options):
        wired = pretrained(family, **options)
        kind = wired.info.kind
        pipeline = load_parts(wired.source, wired.info, [*kind.text_parts, "vae", kind.network_part])
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


@pytest.fixture
def live(pretrained):
    """``live(family)``: the network with its text encoders, and a new adapter on both."""

    def make(family, targets=("to_q", "to_v", *TARGETS), shaken=False, settings=None, **options):
        wired = pretrained(family, **options)
        model = load_network(wired.source, wired.info, "cpu")
        attach_text_encoders(model, wired)
        settings = AdapterSettings("lora", rank=2, alpha=3.0, targets=targets, **(settings or {}))
        add_adapter(model, settings, seed=0)
        model.prepare_training()
        generator = torch.Generator().manual_seed(0)
        for weight in model.trained.values() if shaken else ():
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
        return model

    return make


def told(pipeline, family, captions=CAPTIONS):
    """What the plain pipeline tells its network about these captions and one size."""
    kind, size = PRETRAINED[family], (64, 64)
    sizes = kind.describe_size(size, (0, 0), size)
    encoded = kind.encode_captions(pipeline, captions)
    return encoded | {name: value.repeat(len(captions), 1) for name, value in sizes.items()}


def output(model, conditioning):
    x = torch.randn(len(CAPTIONS), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return model(x, torch.tensor([100.0, 500.0, 900.0]), conditioning)


@pytest.mark.parametrize("storage", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_make_the_very_embeddings_again(whole, family, storage):
    """Those of the encoded captions, to the bit, for empty captions and for those of several windows too."""
    pipeline, kind = whole(family, storage=storage), PRETRAINED[family]
    encoded = kind.encode_captions(pipeline, CAPTIONS)
    encoders = [getattr(pipeline, part) for part in kind.trainable_text_parts]
    assert encoded["tokens"].shape == (len(CAPTIONS), len(encoders), 3 * 16)  # the longest has three windows
    assert encoded["tokens"].dtype == torch.int64
    with torch.no_grad():
        again = kind.embed(encoders, encoded["tokens"])
    assert {*again, "tokens"} == {*encoded}
    assert all(torch.equal(value, encoded[name]) for name, value in again.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_adapter_changes_nothing(pretrained, live, whole, family):
    """Before the first step, captions that are read anew say the same as encoded ones, to the bit."""
    wired, conditioning = pretrained(family), told(whole(family), family)
    plain = load_network(wired.source, wired.info, "cpu")
    with torch.no_grad():
        assert torch.equal(output(live(family), conditioning), output(plain, conditioning))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient checkpointing"])
@pytest.mark.parametrize("storage", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_all_text_encoders(live, whole, family, storage, checkpointing):
    """Each adapter of every encoder learns, in float32; the encoders themselves stay frozen, as they were stored."""
    model = live(family, shaken=True, storage=storage, gradient_checkpointing=checkpointing)
    output(model, told(whole(family), family)).float().square().mean().backward()
    text = {name: weight for name, weight in model.trained.items() if name.startswith(ATTACHED)}
    layers = sum(2 for _ in PRETRAINED[family].trainable_text_parts)
    unread = 1 if family == "sdxl" else 0  # the first encoder's last layer: SDXL reads the one before
    assert len(text) == 2 * len(TARGETS) * layers
    assert sum(weight.grad is not None and bool(weight.grad.any()) for weight in text.values()) == 2 * len(TARGETS) * (
        layers - unread
    )
    assert {weight.dtype for weight in text.values()} == {torch.float32}
    assert all("lora" in name for name in model.trained)
    frozen = {weight.dtype for encoder in model.text_encoders for weight in encoder.parameters()}
    assert frozen == {torch.float32, getattr(torch, {"fp32": "float32", "bf16": "bfloat16"}[storage])}


def test_captions_without_tokens_are_refused(live, whole):
    """From a cache of before: a line that says what to do."""
    conditioning = told(whole("sd"), "sd")
    del conditioning["tokens"]
    with pytest.raises(ValueError, match="Encode Dataset again"):
        output(live("sd"), conditioning)


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_reads_and_draws_the_same(pretrained, live, whole, family, tmp_path):
    """load_lora_weights on the file of a run: the same embeddings, outputs and pictures as the live model's."""
    wired, model, conditioning = pretrained(family), live(family, shaken=True), told(whole(family), family)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    plain = whole(family)
    plain.load_lora_weights(folder, adapter_name="b")
    assert plain.get_list_adapters() == {part: ["b"] for part in ("unet", *encoders_of(wired.info.kind))}
    theirs = told(plain, family)
    assert not torch.allclose(theirs["text"], conditioning["text"], atol=0.01)
    with torch.no_grad():
        ours = model.read_anew(conditioning)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        network = wired.info.kind(plain.unet)
        torch.testing.assert_close(output(model, conditioning), output(network, theirs), atol=1e-5, rtol=1e-5)
    settings = SamplingSettings(steps=2, guidance=4.0, width=64, height=64, seed=5)
    prompts = encode_prompts(wired, ["ab"], "ugly", "cpu")
    images = sample_prompts(
        model, sampling_pipeline(wired, model), prompts, settings, check=lambda: None, progress=lambda *_: None
    )
    drawn = plain(
        "ab", negative_prompt="ugly", num_inference_steps=2, guidance_scale=4.0, width=64, height=64,
        generator=torch.Generator().manual_seed(5), output_type="pt",
    ).images  # fmt: skip
    torch.testing.assert_close(images, drawn, atol=1e-4, rtol=1e-4)


def test_ranks_of_single_layers_are_kept(live, whole, tmp_path):
    """As files of others may have them: diffusers finds rank and alpha of each layer of each encoder."""
    layer = f"{ATTACHED}text_encoder.text_model.encoder.layers.1.self_attn.q_proj"
    other = f"{ATTACHED}text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
    model = live("sdxl", shaken=True, settings={"ranks": {layer: 3, other: 4}, "alphas": {other: 5.0}})
    plain, conditioning = whole("sdxl"), told(whole("sdxl"), "sdxl")
    plain.load_lora_weights(saving.save_model(tmp_path / "model", model, None, {}), adapter_name="b")
    with torch.no_grad():
        torch.testing.assert_close(model.read_anew(conditioning), told(plain, "sdxl"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("format", ["diffusers", "kohya", "comfyui"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_format_is_read_again(pretrained, live, family, format, tmp_path):
    """The same adapter, or that of the network alone where text encoders are not asked for."""
    wired, model = pretrained(family), live(family, shaken=True)
    kind, names = wired.info.kind, names_in(wired, text_encoders=True)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    adapter = read_saved(folder / "pytorch_lora_weights.safetensors")
    path = folder / "pytorch_lora_weights.safetensors"
    if format != "diffusers":
        path = tmp_path / "lora.safetensors"
        weights.save_weights(path, to_file(adapter, format, names, kind.network_part), {})
    back = read_lora(path, names, kind)
    assert {layer: part.scale for layer, part in back.items()} == dict.fromkeys(adapter, 1.5)
    torch.testing.assert_close(to_peft(back), to_peft(adapter), atol=0, rtol=0)
    without = read_lora(path, names_in(wired), kind)
    assert without.keys() == {layer for layer in adapter if not layer.startswith(ATTACHED)}
    tensors_of_a_layer = 2 if format == "diffusers" else 3
    assert text_tensors_in(path) == tensors_of_a_layer * (len(adapter) - len(without))


@pytest.mark.parametrize(("family", "starts"), [("sd", ["lora_te_"]), ("sdxl", ["lora_te1_", "lora_te2_"])])
def test_kohyas_files_are_loaded_by_diffusers(pretrained, live, whole, family, starts, tmp_path):
    """Under sd-scripts' names, with the same embeddings."""
    wired, model = pretrained(family), live(family, shaken=True)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    adapter = read_saved(folder / "pytorch_lora_weights.safetensors")
    tensors = to_file(adapter, "kohya", names_in(wired, text_encoders=True), "unet")
    text = {key for key in tensors if not key.startswith("lora_unet_")}
    assert {key.partition("text_model_encoder_layers_")[0] for key in text} == {*starts}
    plain = whole(family)
    plain.load_lora_weights(tensors, adapter_name="b")
    conditioning = told(whole(family), family)
    with torch.no_grad():
        torch.testing.assert_close(model.read_anew(conditioning), told(plain, family), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_run_comes_back(live, whole, family, tmp_path):
    """saving.restore gives another live model the same adapter on all parts."""
    conditioning, model = told(whole(family), family), live(family, shaken=True)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    other = saving.restore(live(family), folder)
    with torch.no_grad():
        torch.testing.assert_close(output(other, conditioning), output(model, conditioning), atol=1e-6, rtol=1e-5)


def test_they_cannot_be_merged_into_the_network(live):
    """Half of what was learnt would be missing from Save Model's file."""
    with pytest.raises(ValueError, match="use Save LoRA"):
        merged_weights(live("sd"))

"""Save LoRA and Save Model: what was trained is what is taken away."""

import json

import pytest
import torch
from comfyui_rollout.files.weights import read_metadata, read_weights
from comfyui_rollout.models import saving
from comfyui_rollout.models.adapters.existing import read_lora
from comfyui_rollout.models.adapters.layers import to_peft
from comfyui_rollout.models.adapters.names import names_in
from comfyui_rollout.models.adapters.saved import read_saved
from comfyui_rollout.nodes import LoadPretrained, SaveLora, SaveModel
from comfyui_rollout.nodes.models.model import trained_model
from comfyui_rollout.training.stream import Run
from lora_nodes import FORMATS, output_of
from own_networks import WRITTEN


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_trained_text_encoders_are_saved_and_continued(base, adapt, trained, save, prompts, family, format):
    """In every format: the continued model does what the trained one did."""
    first = trained(adapt(base(family), text_encoders=True))
    path = save(first.stream, format=format)
    again = adapt(base(family), continue_from=str(path), text_encoders=True)
    told = prompts(family)
    torch.testing.assert_close(
        output_of(Run(again).value(again), told), output_of(first.live, told), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_diffusers_loads_saved_text_encoders(base, adapt, trained, save, prompts, tiny_pipeline, family):
    """As a user does, from Save LoRA's own file: what the network is told is the same."""
    import diffusers

    made = trained(adapt(base(family), text_encoders=True))
    path = save(made.stream, format="diffusers")
    kind = made.stream.about.pretrained.info.kind
    pipeline = getattr(diffusers, kind.pipeline_class).from_pretrained(tiny_pipeline(family))
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    with torch.no_grad():
        theirs, ours = kind.encode_captions(pipeline, ["ab", "c d"]), made.live.read_anew(prompts(family))
    torch.testing.assert_close({name: ours[name] for name in theirs}, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("family", "format"), WRITTEN)
def test_what_is_saved_is_what_was_trained(base, adapt, trained, save, family, format):
    """In every family and format: read again, the same numbers come out."""
    made = trained(adapt(base(family)))
    path = save(made.stream, format=format)
    pretrained = made.stream.about.pretrained
    found = to_peft(read_lora(path, names_in(pretrained), pretrained.info.kind))
    wanted = to_peft(read_saved(made.run / "model" / "pytorch_lora_weights.safetensors"))
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(value, wanted[key], rtol=1e-6) for key, value in found.items())


def test_diffusers_loads_what_the_node_saved(base, adapt, trained, save, tiny_pipeline):
    """As a user does: the network's output is that of the trained model."""
    from diffusers import StableDiffusionPipeline

    made = trained(adapt(base()))
    path = save(made.stream, format="diffusers")
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline("sd"), safety_checker=None)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 3, pipeline.unet.config.cross_attention_dim)
    with torch.no_grad():
        ours = made.live(x, torch.tensor([500.0]), {"text": text})
        theirs = pipeline.unet(x, torch.tensor([500.0]), text).sample
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("settings", [{"alpha": 5.0}, {"alpha": 5.0, "dora": True}, {"alpha": 1.0, "rslora": True}])
def test_a_saved_lora_is_continued_as_it_was(base, adapt, trained, save, format, settings):
    """The same output at once, and the same alpha: what it learns counts as much as before."""
    made = trained(adapt(base("sdxl"), **settings))
    path = save(made.stream, format=format)
    stream = adapt(base("sdxl"), continue_from=str(path))
    live = Run(stream).value(stream)
    for model in (live, made.live):
        model.network.eval()
    width = live.network.config
    told = {
        "text": torch.randn(1, 3, width.cross_attention_dim),
        "pooled": torch.randn(1, 16),
        "time_ids": torch.ones(1, 6),
    }
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        outputs = [model(x, torch.tensor([500.0]), told) for model in (live, made.live)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    scales = [
        layer.scaling[name]
        for name in live.adapters
        for layer in live.network.modules()
        if name in getattr(layer, "scaling", {})
    ]
    assert scales
    assert scales == pytest.approx([settings["alpha"] / (2**0.5 if "rslora" in settings else 2)] * len(scales))


def test_kohyas_rank_is_that_of_the_file(base, adapt, trained, save):
    """Where q, k and v are one layer, it has their ranks together."""
    made = trained(adapt(base("flux"), targets="custom", pattern=r"transformer_blocks\.\d+\.attn\.to_[qkv]", rank=4))
    for format, rank in (("kohya", "12"), ("comfyui", "4"), ("diffusers", "4")):
        path = save(made.stream, format=format, name=format)
        assert read_metadata(path)["ss_network_dim"] == rank
        tensors = {key: value for key, value in read_weights(path).items() if "down" in key or "lora_A" in key}
        assert {str(len(value)) for value in tensors.values()} == {rank}


PROMPT = {
    "4": {"class_type": "Rollout", "inputs": {"batch": ["1", 0], "probability": 0.5}},
    "5": {"class_type": "RolloutOptimizer", "inputs": {"learning_rate": 1e-4, "optimizer": "adamw"}},
    "6": {"class_type": "RolloutImageFolderDataset", "inputs": {"folder": "my secrets"}},
}


def test_the_file_says_what_it_is(base, adapt, trained, save):
    """For model managers, for kohya's tools, and for the canvas."""
    told = {"title": "Sks", "author": "me", "description": "a dog", "trigger": "sks dog"}
    extra = {"workflow": {"nodes": [1]}}
    path = save(trained(adapt(base())).stream, name="dog", prompt=PROMPT, extra_pnginfo=extra, **told)
    found = read_metadata(path)
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert found["modelspec.trigger_phrase"] == "sks dog"
    assert (found["modelspec.title"], found["modelspec.author"]) == ("Sks", "me")
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("2", "3.0")
    assert (found["ss_steps"], found["ss_seed"], found["ss_learning_rate"]) == ("40", "7", "0.0001")
    assert json.loads(found["workflow"]) == extra["workflow"]
    assert json.loads(found["prompt"]) == PROMPT
    assert json.loads(found["rollout"])["4"] == {"node": "Rollout", "probability": 0.5}
    assert "my secrets" not in found["rollout"]


def test_the_trigger_word_is_that_of_the_data_set(base, adapt, trained, save):
    """Nobody has to type it twice."""
    prompt = {"2": {"class_type": "RolloutEncodeDataset", "inputs": {"trigger_word": "sks"}}}
    path = save(trained(adapt(base())).stream, prompt=prompt)
    assert read_metadata(path)["modelspec.trigger_phrase"] == "sks"


def test_the_workflow_can_be_left_out(base, adapt, trained, save):
    """Nobody sees prompts and paths."""
    extra = {"workflow": {"nodes": [1]}}
    path = save(trained(adapt(base())).stream, embed_workflow=False, prompt=PROMPT, extra_pnginfo=extra)
    assert not {"workflow", "prompt", "rollout"} & read_metadata(path).keys()
    assert "my secrets" not in path.read_bytes().decode("latin1")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_numbers_can_be_smaller(base, adapt, trained, save, dtype):
    """All but the scalars."""
    path = save(trained(adapt(base())).stream, dtype=dtype)
    wanted = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert {value.dtype for value in read_weights(path).values() if value.ndim} == {wanted}


def test_nothing_is_overwritten(base, adapt, trained, save, output):
    """The next number is taken; an ending that was typed is not doubled."""
    stream = trained(adapt(base())).stream
    paths = [save(stream, name="mine"), save(stream, name="mine.safetensors")]
    assert paths == [output / "loras" / f"mine_0000{number}.safetensors" for number in (1, 2)]


def test_only_a_trained_adapter_can_be_saved(build, base, adapt, trained, one_line, output):
    """Not one that is new, and not a model without one."""
    for stream, words in (
        (adapt(base()), "not trained yet; wire the model that Optimizer Step gives"),
        (trained(base()).stream, "there is no adapter on it"),
        (base(), "there is no adapter on it"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            build(SaveLora, model=stream, name="mine")
        one_line(caught)
    assert not output.exists()
    assert SaveLora.VALIDATE_INPUTS(name="a/b") == "'a/b' holds '/'; give a plain file name, without slashes"


def test_a_fine_tuned_model_is_a_whole_pipeline(build, wire, base, trained, tiny_pipeline, output):
    """diffusers loads it with all its parts, and the network is the trained one, to the bit."""
    from diffusers import StableDiffusionPipeline

    model = base()
    live = Run(model).value(model)
    live.prepare_training()
    with torch.no_grad():
        for weight in live.network.parameters():
            weight += 0.01
    folder = output / "run" / "model"
    saving.save_model(folder, live, None, {})
    stream, schedule = trained_model(model, folder, "9", "Optimizer Step"), model.about.pretrained.info.schedule
    (told,) = build(SaveModel, model=stream, schedule=schedule, name="mine")["ui"]["text"]
    assert told == str(output / "models" / "mine_00001")
    (file,) = (saving.Path(told) / "unet").glob("*.safetensors")
    assert read_metadata(file)["modelspec.architecture"] == "stable-diffusion-v1"
    pipeline = StableDiffusionPipeline.from_pretrained(told)
    state, wanted = pipeline.unet.state_dict(), live.network.state_dict()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    original = StableDiffusionPipeline.from_pretrained(tiny_pipeline("sd"), safety_checker=None)
    encoder = original.text_encoder.state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in pipeline.text_encoder.state_dict().items())
    again = wire(LoadPretrained, path=told)
    assert again.about.pretrained.info.family == "sd"


@pytest.mark.parametrize("kind", ["lora", "lokr"])
def test_an_adapter_is_merged_into_a_whole_model(build, base, adapt, trained, kind):
    """The single file is the network by diffusers' names, for ComfyUI's folder diffusion_models."""
    made = trained(adapt(base(), kind=kind))
    schedule = made.stream.about.pretrained.info.schedule
    inputs = {"schedule": schedule, "name": "mine", "format": "single_file", "dtype": "bf16"}
    (told,) = build(SaveModel, model=made.stream, **inputs)["ui"]["text"]
    weights = read_weights(saving.Path(told))
    plain = Run(made.stream.inputs["model"]).value(base())
    assert weights.keys() == plain.network.state_dict().keys()
    plain.network.load_state_dict(weights)
    x, text = torch.randn(1, 4, 8, 8), {"text": torch.randn(1, 3, plain.network.config.cross_attention_dim)}
    with torch.no_grad():
        merged, wanted = (model(x, torch.tensor([500.0]), text) for model in (plain, made.live))
    torch.testing.assert_close(merged, wanted, atol=0.05, rtol=0.05)


def test_full_fine_tuning_comes_back_to_the_bit(base, fit, same_bits):
    """A base in 16 bits, two real steps: the stream that Optimizer Step gives has the trained 32 bits."""
    model = base(storage="bf16")
    stream, folder = fit(model)
    weights = read_weights(folder / "model" / saving.WEIGHTS)
    state = Run(stream).value(stream).network.state_dict()
    assert same_bits({name: value.clone() for name, value in state.items()}, weights)
    before = Run(model).value(model).network.state_dict()
    assert not same_bits(weights, {name: value.float() for name, value in before.items()})


def test_a_single_file_needs_a_pretrained_model(build, graph, train):
    """A small model from scratch has no ComfyUI that knows it."""
    run = train(graph())
    with pytest.raises(ValueError, match="format: single_file is for pretrained models"):
        build(SaveModel, model=run.model, schedule=graph().schedule, name="x", format="single_file")


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
def test_a_file_is_put_on_at_a_strength(base, adapt, trained, save, kind):
    """At 0 the model is the pretrained one; in between, the adapter's part of a layer's weight is that share."""
    path = save(trained(adapt(base(), kind=kind, rank=3)).stream)

    def output(strength):
        stream = adapt(base(), continue_from=path.name, strength=strength)
        live = Run(stream).value(stream)
        x, text = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1, 3, 1)
        text = text.expand(-1, -1, live.network.config.cross_attention_dim)
        with torch.no_grad():
            return live(x, torch.tensor([500.0]), {"text": text})

    plain = base()
    with torch.no_grad():
        live = Run(plain).value(plain)
        x, text = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1, 3, 1)
        bare = live(x, torch.tensor([500.0]), {"text": text.expand(-1, -1, live.network.config.cross_attention_dim)})
    torch.testing.assert_close(output(0.0), bare, atol=1e-6, rtol=1e-6)
    weak, half, full = (float((output(strength) - bare).norm()) for strength in (0.25, 0.5, 1.0))
    assert 0 < weak < half < full

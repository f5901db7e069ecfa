"""Add LoRA and Save LoRA: from a pretrained model to a file to take away."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.encodings.encoders import PretrainedEncoders
from comfyui_rollout.files import weights
from comfyui_rollout.files.weights import read_metadata, read_weights
from comfyui_rollout.models import saving
from comfyui_rollout.models.adapters.existing import read_lora
from comfyui_rollout.models.adapters.layers import to_peft
from comfyui_rollout.models.adapters.names import names_in
from comfyui_rollout.models.adapters.saved import read_saved
from comfyui_rollout.models.loading.weight_count import in_words
from comfyui_rollout.nodes import AddLora, LoadPretrained, SaveLora, SaveModel
from comfyui_rollout.nodes.models.model import trained_model
from comfyui_rollout.training.stream import Run, Stream
from own_networks import READERS

FORMATS = ("comfyui", "diffusers", "kohya")


@pytest.fixture
def base(wire, tiny_pipeline):
    """``base(family)``: the model that Load Pretrained gives."""

    def load(family="sd", **settings):
        return wire(LoadPretrained, path=str(tiny_pipeline(family)), **{"storage": "fp32", **settings})

    return load


@pytest.fixture
def adapt(wire):
    """``adapt(model, rank=2)``: the model behind Add LoRA."""
    return lambda model, **settings: wire(AddLora, model=model, **{"rank": 2, "alpha": 3.0, **settings})


def shake(model, seed=0):
    """Adapters as if they were trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.network.named_parameters():
        if any(part in model.adapters for part in name.split(".")):
            weight.data += 0.2 * torch.randn(weight.shape, generator=generator)


@pytest.fixture
def trained(tmp_path):
    """``trained(model)``: what Optimizer Step would give, without the training; and the live model."""

    def finish(model, number=0):
        live = Run(model).value(model)
        shake(live, number)
        run = tmp_path / f"run_{number}"
        saving.save_model(run / "model", live, None, {})
        (run / "run.json").write_text(json.dumps({"steps_done": 40, "seed": 7}))
        return SimpleNamespace(stream=trained_model(model, run / "model", "9", "Optimizer Step"), live=live, run=run)

    return finish


def loss_of(model):
    """A loss that needs no data set: the squared output on noise."""

    def loss(step, model):
        x = torch.randn(2, 4, 8, 8, generator=step.generator())
        text = torch.ones(2, 3, model.network.config.cross_attention_dim)
        return model(x, torch.tensor([100.0, 900.0]), {"text": text}).square().mean((1, 2, 3))

    return SimpleNamespace(loss=Stream(loss, {"model": model}, "loss", "Loss"), model=model)


@pytest.fixture
def fit(build, wire):
    """``fit(model)``: Optimizer Step on that loss; the stream it gives, and the run's folder."""

    def run(model, **options):
        wired = loss_of(model)
        optimizer = wire(nodes.Optimizer, learning_rate=0.01)
        inputs = {"loss": wired.loss, "model": model, "optimizer": optimizer, "steps": 2, **options}
        return build(nodes.OptimizerStep, **inputs)["result"]

    return run


@pytest.fixture
def save(build):
    """``save(stream)``: the one file that Save LoRA writes."""

    def write(stream, **inputs):
        (path,) = build(SaveLora, model=stream, **{"dtype": "fp32", **inputs})["ui"]["text"]
        return saving.Path(path)

    return write


# Add LoRA


def test_a_training_changes_the_adapter_alone(base, adapt, fit, same_bits):
    """Two steps of Optimizer Step: the base is untouched, and the trained adapter comes back."""
    model = adapt(base())
    stream, folder = fit(model)
    before, after = Run(model).value(model), Run(stream).value(stream)
    assert after is not before
    changed = {
        name
        for name, value in after.network.state_dict().items()
        if not torch.equal(value, before.network.state_dict()[name])
    }
    assert changed
    assert all(name.split(".")[-2] == after.adapters[0] for name in changed)
    assert not (folder / "model" / "config.json").exists()


def test_a_checkpoint_can_be_copied_away(base, adapt, fit, tiny_pipeline):
    """Its file has run and step in its name, and diffusers loads it as it is."""
    from diffusers import StableDiffusionPipeline

    _, folder = fit(adapt(base()), steps=3, checkpoint_every=1, keep_checkpoints=1, run_name="dog")
    (path,) = (folder / "checkpoints").rglob("*.safetensors")
    assert path.relative_to(folder).as_posix() == "checkpoints/step_000002/dog_00001_step_000002.safetensors"
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline("sd"), safety_checker=None)
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="dog")
    assert pipeline.get_list_adapters() == {"unet": ["dog"]}


def test_it_says_what_gets_one_before_anything_is_loaded(build, base):
    """Counted in the model's small files, and just as many are trained then."""
    made = build(AddLora, model=base(), targets="all")
    stream = made["result"][0]
    live = Run(stream).value(stream)
    live.prepare_training()
    trained = in_words(sum(weight.numel() for weight in live.trained.values()))
    (told,) = made["ui"]["text"]
    layers = sum(".lora_A." in name for name in live.trained)
    assert re.fullmatch(
        rf"lora of rank 16 on {layers} of 83 layers: {trained} trained weights, \d+ kB in memory beside activations",
        told,
    )


def test_it_says_how_much_is_trained(base, adapt, caplog):
    """Once, when training starts."""
    model = adapt(base(), targets="custom", pattern="mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    with caplog.at_level("INFO"):
        run = Run(model)
        run.value(model)
        run.value(model)
    (message,) = [record.getMessage() for record in caplog.records if "trained weights" in record.getMessage()]
    assert message.endswith("(Add LoRA): 64 trained weights")


def test_a_pattern_chooses_layers(base, adapt):
    """Ends of names with commas, or a regular expression for whole names."""

    def layers(pattern):
        stream = adapt(base(), targets="custom", pattern=pattern)
        live = Run(stream).value(stream)
        return {name for name, module in live.network.named_modules() if hasattr(module, "lora_A")}

    ends = layers("attn2.to_k, attn2.to_v")
    assert ends
    assert all(name.endswith(("attn2.to_k", "attn2.to_v")) for name in ends)
    assert layers(r".*attn2\.to_[kv]") == ends


@pytest.mark.parametrize("pattern", [".*", r".*attn1.*", r"mid_block\..*", "resnets.0, to_q"])
@pytest.mark.parametrize("kind", ["lora", "lokr"])
def test_a_pattern_may_fit_containers_too(build, base, pattern, kind):
    """Only layers are handed on, as many as it says: containers, norms and activations can have no adapter."""
    made = build(AddLora, model=base(), targets="custom", pattern=pattern, kind=kind, rank=2)
    live = Run(made["result"][0]).value(made["result"][0])
    adapted = [
        name
        for name, module in live.network.named_modules()
        if name and "lora_RolloutAddLora" in getattr(module, "scaling", {})
    ]
    assert made["ui"]["text"][0].startswith(f"{kind} of rank 2 on {len(adapted)} of 83 layers")


def test_a_pattern_that_fits_containers_alone_is_refused(adapt, base):
    """While wiring: nothing is loaded or encoded for it."""
    for pattern in ("time_proj", "attn1", r".*\.norm\d?", "down_blocks"):
        with pytest.raises(ValueError, match=r"^pattern: no layer of this model fits"):
            adapt(base(), targets="custom", pattern=pattern)


def test_several_in_a_row_are_trained_and_saved(build, base, wire, fit, output):
    """Each by its node's name, each in a file of its own."""
    model = wire(AddLora, model=base(), unique_id="3", rank=2)
    model = wire(AddLora, model=model, unique_id="7:4", rank=2, kind="loha", targets="all")
    stream, folder = fit(model)
    assert stream.about.adapters == ("lora_3", "lora_7_4")
    files = sorted(path.name for path in (folder / "model").glob("*.safetensors"))
    assert files == ["pytorch_lora_weights_lora_3.safetensors", "pytorch_lora_weights_lora_7_4.safetensors"]
    told = build(SaveLora, model=stream, name="mine")["ui"]["text"]
    names = ["mine_lora_3_00001.safetensors", "mine_lora_7_4_00001.safetensors"]
    assert told == [str(output / "loras" / name) for name in names]


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
def test_all_of_it_works_inside_comfyuis_inference_mode(build, base, adapt, fit, save, kind):
    """Train, save, train further, merge."""
    with torch.inference_mode():
        stream, _ = fit(adapt(base(storage="bf16"), kind=kind))
        again = adapt(base(storage="bf16"), continue_from=save(stream).name)
        stream, folder = fit(again)
        schedule = again.about.pretrained.info.schedule
        build(SaveModel, model=stream, schedule=schedule, name="merged", format="single_file", dtype="bf16")
    moved = read_weights(next((folder / "model").glob("*.safetensors")))
    assert all(value.isfinite().all() for value in moved.values())


REFUSED = [
    ({"kind": "lokr", "dora": True}, "dora goes with kind lora only, not with lokr"),
    ({"kind": "loha", "rslora": True}, "rslora goes with kind lora only, not with loha"),
    ({"targets": "custom"}, "pattern: name the layers"),
    ({"targets": "custom", "pattern": "(to_q"}, r"pattern: '\(to_q' is no regular expression"),
    ({"continue_from": "nowhere"}, "there is no LoRA file 'nowhere'"),
    ({"kind": "loha", "text_encoders": True}, "text_encoders: they get a lora only, not a loha"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_what_cannot_be_is_refused_in_the_editor(base, adapt, settings, words, one_line):
    """And when it is built without one: before anything is loaded."""
    told = AddLora.VALIDATE_INPUTS(**{"kind": "lora", "targets": "attention", **settings})
    with pytest.raises(ValueError, match=words) as caught:
        adapt(base(), **settings)
    assert told.removeprefix("continue_from: ") == one_line(caught)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"targets": "custom", "pattern": "to_x"},
            r"^pattern: no layer of this model fits \('to_x',\); its layers are ",
        ),
        ({"targets": "attention+mlp"}, r"^targets: Stable Diffusion 1.x / 2.x has attention, all or custom, not "),
    ],
)
def test_layers_that_this_model_does_not_have_are_refused_while_wiring(base, adapt, settings, words, one_line):
    """Its settings are enough to know."""
    with pytest.raises(ValueError, match=words) as caught:
        adapt(base(), **settings)
    one_line(caught)


def test_a_model_from_scratch_gets_none(graph, adapt):
    """Its random weights are not in the file."""
    with pytest.raises(ValueError, match="wire Load Pretrained"):
        adapt(graph().model)


def test_a_trained_model_gets_none_in_the_same_graph(base, adapt, trained):
    """It would be half trained already; the way to go on is named."""
    with pytest.raises(ValueError, match="continue_from"):
        adapt(trained(adapt(base())).stream)


# Continuing


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_saved_file_is_trained_further(base, adapt, trained, save, format, kind):
    """Whatever the format: rank, alpha, kind and layers come from the file, and the output is where it was."""
    first = trained(adapt(base(), kind=kind, rank=3, targets="all"))
    path = save(first.stream, format=format)
    again = adapt(base(), rank=64, continue_from=path.name)
    live = Run(again).value(again)
    x, text = torch.randn(1, 4, 8, 8), {"text": torch.randn(1, 3, live.network.config.cross_attention_dim)}
    with torch.no_grad():
        outputs = [model(x, torch.tensor([500.0]), text) for model in (first.live, live)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    live.prepare_training()
    assert {weight.dtype for weight in live.trained.values()} == {torch.float32}


def test_the_folder_of_a_run_can_be_continued(build, base, trained, adapt):
    """By its path; and it says what it found."""
    first = trained(adapt(base()))
    told = build(AddLora, model=base(), continue_from=str(first.run))["ui"]["text"]
    assert told == ["continues pytorch_lora_weights.safetensors: lora of rank 2 on 32 layers"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_another_model_is_refused(base, adapt, trained, save, format, one_line):
    """An SDXL LoRA on SD 1.x: how many keys, one of them, and before anything is loaded."""
    path = save(trained(adapt(base("sdxl"))).stream, format=format)
    with pytest.raises(ValueError, match=r"does not fit Stable Diffusion 1\.x / 2\.x: \d+ ") as caught:
        adapt(base("sd"), continue_from=str(path))
    assert one_line(caught).endswith("was it made for another model?")


def test_text_encoders_in_a_file_are_left_out_aloud(base, adapt, trained, save, caplog):
    """Many files of kohya's tools have them."""
    path = save(trained(adapt(base())).stream, format="kohya")
    tensors = read_weights(path) | {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}
    weights.save_weights(path, tensors, {})
    adapt(base(), continue_from=str(path))
    assert "its 1 tensors for text encoders are left out" in caplog.text


# Text encoders


@pytest.fixture
def prompts(base):
    """``prompts(family)``: encoded captions and their size, as a data set gives them."""

    def encode(family):
        pretrained = base(family).about.pretrained
        with PretrainedEncoders(pretrained).text("cpu") as encode:
            told = encode(["ab", "c d"])
        sizes = pretrained.info.kind.describe_size((64, 64), (0, 0), (64, 64))
        return told | {name: value.repeat(2, 1) for name, value in sizes.items()}

    return encode


def output_of(model, told):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(x, torch.tensor([100.0, 900.0]), told)


@pytest.mark.parametrize("targets", [{}, {"targets": "custom", "pattern": r".*attn2\.to_[kv]"}], ids=["", "pattern"])
def test_text_encoders_are_trained_too(build, base, wire, prompts, targets):
    """Optimizer Step changes adapters on the network and on CLIP, and gives both back; resume goes on with both."""
    told = prompts("sd")

    def loss(step, model):
        x = torch.randn(2, 4, 8, 8, generator=step.generator())
        return model(x, torch.tensor([100.0, 900.0]), told).square().mean((1, 2, 3))

    def train(steps, **options):
        model = wire(AddLora, model=base(), unique_id="3", rank=2, text_encoders=True, **targets)
        optimizer = wire(nodes.Optimizer, learning_rate=0.01)
        inputs = {"loss": Stream(loss, {"model": model}, "loss", "Loss"), "model": model, "optimizer": optimizer}
        stream, folder = build(nodes.OptimizerStep, **inputs, steps=steps, ema_decay=0.9, **options)["result"]
        return Run(stream).value(stream), folder

    whole, _ = train(4)
    half, folder = train(2)
    resumed, _ = train(4, resume=folder.name)
    for model in (whole, half, resumed):
        model.prepare_training()
    learnt = {name for name, weight in half.trained.items() if ".lora_B." in name and weight.any()}
    assert {name.startswith("text_encoders.") for name in learnt} == {True, False}
    assert all(torch.equal(weight, resumed.trained[name]) for name, weight in whole.trained.items())
    assert not torch.equal(output_of(whole, told), output_of(half, told))


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


def test_a_second_adapter_leaves_text_encoders_to_the_first(base, wire):
    """They are loaded once; each adapter is where it was asked for."""
    first = wire(AddLora, model=base(), unique_id="3", rank=2, text_encoders=True)
    second = wire(AddLora, model=first, unique_id="4", rank=2, targets="all")
    names = [name for name, _ in Run(second).value(second).network.named_parameters()]
    assert any(name.startswith("text_encoders.") and ".lora_3." in name for name in names)
    assert not any(name.startswith("text_encoders.") and ".lora_4." in name for name in names)


def test_it_says_what_becomes_of_text_encoders(build, base, adapt, trained):
    """How many layers get one; what is left out of a file; and a file that has nothing for them."""
    model = adapt(base(), text_encoders=True)
    told = build(AddLora, model=base(), text_encoders=True)["ui"]["text"]
    assert told[0].startswith("lora of rank 16 on 40 of 95 layers: ")
    run = str(trained(model).run)
    (told,) = build(AddLora, model=base(), continue_from=run)["ui"]["text"]
    assert "rank 2 on 32 layers; its 16 tensors for text encoders are left out: turn text_encoders on" in told
    bare = str(trained(adapt(base()), number=1).run)
    with pytest.raises(ValueError, match=r"^text_encoders: pytorch_lora_weights\.safetensors has nothing for them"):
        adapt(base(), continue_from=bare, text_encoders=True)


def test_text_encoders_that_cannot_be_trained_are_refused(base, adapt, one_line):
    """A family whose text encoder is large, before anything is loaded."""
    with pytest.raises(ValueError, match=r"^text_encoders: those of Lumina .* cannot be trained here") as caught:
        adapt(base("lumina2"), text_encoders=True)
    one_line(caught)


# Save LoRA


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", READERS)
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


# Save Model


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

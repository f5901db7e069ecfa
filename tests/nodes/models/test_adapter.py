"""Add LoRA: which layers and text encoders get an adapter, what is trained, and where it goes on."""

import re

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.files import weights
from comfyui_rollout.files.weights import read_weights
from comfyui_rollout.models.loading.weight_count import in_words
from comfyui_rollout.nodes import AddLora, SaveLora, SaveModel
from comfyui_rollout.training.stream import Run, Stream
from lora_nodes import FORMATS, output_of


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

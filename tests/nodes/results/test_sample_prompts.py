"""Sample Prompts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.data import Batch, DatasetInfo
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.models.hosted import HostedModel
from comfyui_rollout.nodes.results import sample_prompts
from comfyui_rollout.training.stream import Run, Stream
from PIL import Image
from safetensors.torch import load_file

FEW = {"prompts": "a\n\n b \n", "width": 64, "height": 64, "steps": 2, "guidance": 1.0}
WHILE_TRAINING = {
    "prompt": {
        "s": {"class_type": "RolloutSamplePrompts", "inputs": {"prompts": "a", "seed": 0}},
        "t": {"class_type": "RolloutOptimizerStep", "inputs": {"samples": ["s", 0], "steps": 3}},
    },
    "unique_id": "s",
}


@pytest.fixture
def loaded(build, wire, tiny_pipeline):
    """``loaded(family)``: what comes out of Load Pretrained, with a LoRA on it."""

    def load(family="sd"):
        returned = build(nodes.LoadPretrained, path=str(tiny_pipeline(family)), storage="fp32")
        model, schedule, pipeline = returned["result"]
        return SimpleNamespace(model=wire(nodes.AddLora, model=model, rank=2), schedule=schedule, pipeline=pipeline)

    return load


@pytest.fixture
def training(wire, loaded):
    """``training()``: a graph that fits the LoRA to a few random latents."""

    def connect():
        wired = loaded()

        def batch(step):
            random = torch.Generator().manual_seed(step.index)
            return Batch(torch.randn(2, 4, 8, 8, generator=random), {"text": torch.randn(2, 16, 16, generator=random)})

        data = Stream(batch, node_id="data", about=DatasetInfo("latents", 2, 4, 8, family="sd"))
        noisy = wire(nodes.NoisyBatch, dataset=data, schedule=wired.schedule)
        wired.loss = wire(nodes.DiffusionLoss, batch=noisy, model=wired.model)
        return wired

    return connect


@pytest.fixture
def train(build, wire):
    """``train(graph, samples=...)``: three large steps of Optimizer Step; the trained model and the run's folder."""

    def run(graph, **options):
        optimizer = wire(nodes.Optimizer, learning_rate=0.1)
        inputs = {"loss": graph.loss, "model": graph.model, "optimizer": optimizer, "steps": 3, **options}
        return build(nodes.OptimizerStep, **inputs)["result"]

    return run


@pytest.fixture
def samples(build):
    """``samples(graph, **inputs)``: what Sample Prompts returns."""

    def make(graph, **inputs):
        return build(nodes.SamplePrompts, model=graph.model, pipeline=graph.pipeline, **{**FEW, **inputs})

    return make


def picture(output, returned):
    (told,) = returned["ui"]["images"]
    with Image.open(output / told["subfolder"] / told["filename"]) as image:
        return image.copy()


def test_a_node_of_its_own_draws_right_away(samples, loaded, output):
    """One row a prompt, count images in each; drawn again, the file is the same."""
    graph = loaded()
    images = [picture(output, samples(graph, count=2)) for _ in range(2)]
    assert images[0].size == (2 * 64 + 2, 2 * 64 + 2)
    assert images[0] == images[1]
    assert [path.name for path in (output / "samples").iterdir()] == ["node_RolloutSamplePrompts_2_steps_seed_0.png"]


def test_samples_of_a_training_are_not_drawn_while_wiring(samples, loaded, output, monkeypatch):
    """Wired into Optimizer Step, straight or through another Sample Prompts, it waits: no network is loaded."""
    monkeypatch.setattr("comfyui_rollout.nodes.models.pretrained.load_network", None)
    chained = {"c": {"class_type": "RolloutSamplePrompts", "inputs": {"samples": ["s", 0]}}}
    last = {"t": {"class_type": "RolloutOptimizerStep", "inputs": {"samples": ["c", 0]}}}
    for prompt in (WHILE_TRAINING["prompt"], WHILE_TRAINING["prompt"] | chained | last):
        assert samples(loaded(), unique_id="s", prompt=prompt)["ui"] == {}
    assert not output.exists()


def test_images_come_out_for_other_nodes(samples, loaded, output):
    """As ComfyUI has them: (B, H, W, 3) in 0..1, the very ones of the picture."""
    returned = samples(loaded(), seed=7)
    images = returned["result"][1]
    assert images.shape == (2, 64, 64, 3)
    assert 0 <= images.min() < images.max() <= 1
    first = torch.tensor(np.asarray(picture(output, returned).crop((0, 0, 64, 64))))
    torch.testing.assert_close(first / 255, images[0].cpu(), atol=0.5 / 255 + 1e-6, rtol=0)


def test_images_that_are_not_there_yet_are_refused(samples, loaded):
    """Optimizer Step draws later than any node that would read them."""
    prompt = {**WHILE_TRAINING["prompt"], "p": {"class_type": "PreviewImage", "inputs": {"images": ["s", 1]}}}
    with pytest.raises(ValueError, match="images: Optimizer Step draws these samples, so there are none yet"):
        samples(loaded(), prompt=prompt, unique_id="s")


def test_others_make_room_for_the_text_encoders(samples, loaded, host, monkeypatch):
    """Also where the images are made later: prompts are encoded at once."""
    asked = []
    encode = sample_prompts.encode_prompts
    monkeypatch.setattr(host, "make_room", lambda: asked.append("make_room"))
    monkeypatch.setattr(sample_prompts, "encode_prompts", lambda *given: asked.append("encode") or encode(*given))
    samples(loaded(), **WHILE_TRAINING)
    assert asked == ["make_room", "encode"]


@pytest.mark.parametrize(
    ("inputs", "trained"),
    [({"samples": ["s", 0]}, True), ({"samples": ["x", 0]}, False), ({}, False), ({"samples": "s"}, False)],
)
def test_a_link_to_optimizer_step_is_what_counts(inputs, trained):
    prompt = {"t": {"class_type": "RolloutOptimizerStep", "inputs": inputs}}
    assert sample_prompts.is_trained_with(prompt, "s") == trained


def test_a_link_to_another_node_is_no_training():
    prompt = {"p": {"class_type": "RolloutSamplePrompts", "inputs": {"samples": ["s", 0]}}}
    assert not sample_prompts.is_trained_with(prompt, "s")


def test_images_come_while_it_trains(samples, training, train, host):
    """Every sample_every steps and at the end, into the run's folder; the LoRA's progress is seen in them."""
    graph = training()
    stream = samples(graph, **WHILE_TRAINING)["result"][0]
    _, folder = train(graph, samples=stream, sample_every=1)
    files = sorted(folder.glob("samples/*.png"))
    assert [path.name for path in files] == [f"s_step_00000{step}.png" for step in (1, 2, 3)]
    assert len({path.read_bytes() for path in files}) == 3
    assert ("progress", "s", 2, 2) in host.told
    assert ("finish", "s") in host.told


def test_the_vae_is_loaded_once_in_a_run(samples, training, train, monkeypatch):
    """Not at every round."""
    made, real = [], sample_prompts.sampling_pipeline
    monkeypatch.setattr(sample_prompts, "sampling_pipeline", lambda *given: made.append(1) or real(*given))
    graph = training()
    train(graph, samples=samples(graph, **WHILE_TRAINING)["result"][0], sample_every=1)
    assert len(made) == 1


def test_samples_of_a_run_are_those_of_what_it_saved(samples, training, train, output):
    """The last images of a run, made with the averaged weights, are those of the model that Optimizer Step gives."""
    graph = training()
    stream = samples(graph, **WHILE_TRAINING)["result"][0]
    before = picture(output, samples(graph))
    graph.model, folder = train(graph, samples=stream, ema_decay=0.5)
    with Image.open(folder / "samples" / "s_step_000003.png") as last:
        assert picture(output, samples(graph)) == last.copy()
        assert before != last.copy()


def test_images_do_not_disturb_the_training(samples, training, train, same_bits):
    """The weights are the same, bit for bit, whether somebody looks or not."""
    graph = training()
    stream = samples(graph, **WHILE_TRAINING)["result"][0]
    folders = [train(graph, samples=stream, sample_every=1)[1], train(graph)[1]]
    assert same_bits(*(load_file(folder / "model" / "pytorch_lora_weights.safetensors") for folder in folders))


def test_samples_are_drawn_around_the_live_network(samples, loaded):
    """The pipeline of a run has the network of the model's wire, not another one."""
    graph = loaded()
    stream = samples(graph, **WHILE_TRAINING)["result"][0]
    run = Run(stream)
    run.value(stream)
    assert run.keep(stream, None).unet is run.value(graph.model).network


def test_inference_mode_does_not_matter_to_prompts(samples, loaded, output):
    """Inside ComfyUI the picture is the same, and what was encoded there can be used outside."""
    graph, pictures = loaded(), []
    for mode in (True, False):
        with torch.inference_mode(mode):
            pictures.append(picture(output, samples(graph)))
            prompts = samples(graph, **WHILE_TRAINING)["result"][0].inputs["prompts"]
        assert not any(value.is_inference() for each in prompts.positive for value in each.values())
    assert pictures[0] == pictures[1]


def test_a_round_can_be_interrupted(samples, loaded, host, output):
    """At once, not after the last image; no half-made picture stays."""
    host.stop_after = 1
    with pytest.raises(Interrupted):
        samples(loaded())
    assert [event for event in host.told if event[0] == "progress"] == [("progress", "RolloutSamplePrompts", 1, 2)]
    assert not output.exists()


def test_class_conditional_models_take_labels(samples, loaded, output):
    """Numbers and names, one a line; an unknown one is refused before training."""
    graph, native = loaded("dit"), {"width": 0, "height": 0}
    assert picture(output, samples(graph, prompts="1\ntabby", **native)).size == (64, 130)
    with pytest.raises(ValueError, match="'unicorn' is no class"):
        samples(graph, prompts="unicorn", **native)
    with pytest.raises(ValueError, match="one size only"):
        samples(graph, prompts="1")


def test_sizes_are_checked_while_wiring(samples, loaded, one_line, monkeypatch):
    """Before any text encoder is loaded."""
    monkeypatch.setattr(sample_prompts, "encode_prompts", None)
    with pytest.raises(ValueError, match="width 100") as caught:
        samples(loaded(), width=100)
    assert "multiple of 64" in one_line(caught)


def test_wires_that_do_not_fit_are_refused(samples, loaded, graph, one_line):
    """A model from scratch reads no prompts, and the pipeline is that of the model."""
    made, other = loaded(), loaded("sd3")
    with pytest.raises(ValueError, match="use Sample Images") as caught:
        samples(SimpleNamespace(model=graph().model, pipeline=made.pipeline))
    one_line(caught)
    with pytest.raises(ValueError, match="pipeline: it is of Stable Diffusion 3") as caught:
        samples(SimpleNamespace(model=made.model, pipeline=other.pipeline))
    one_line(caught)


def test_there_must_be_a_prompt():
    assert nodes.SamplePrompts.VALIDATE_INPUTS(prompts=None) is True  # wired: not known yet
    assert nodes.SamplePrompts.VALIDATE_INPUTS(prompts="a cat") is True
    assert "at least one" in nodes.SamplePrompts.VALIDATE_INPUTS(prompts=" \n ")


def test_sample_images_names_the_node_for_pretrained_models(build, loaded):
    """It has solvers, but no text encoder and no VAE."""
    made = loaded()
    with pytest.raises(ValueError, match="use Sample Prompts"):
        build(nodes.SampleImages, model=made.model, schedule=made.schedule)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    "family", ["zimage", "krea2", "qwen_image", "qwen_image_21", "flux2_klein", "flux3", "chroma", "longcat_image"]
)
def test_every_guidance_draws(loaded, samples, family, guidance):
    """The family says above which one a negative prompt is asked for: Z-Image's pipeline wants one above 0."""
    wired = loaded(family)
    returned = samples(wired, guidance=guidance, prompts="a cat that sits\nb", negative="bad")
    (picture,) = returned["ui"]["images"]
    assert picture["filename"].endswith(".png")
    encoded = returned["result"][0].inputs["prompts"]
    assert (encoded.negative is not None) == (guidance > wired.pipeline.info.kind.guided_above)


def test_comfyuis_own_sampler_has_no_time_shift(build):
    """It is refused where it would be passed over in silence."""
    hosted = HostedModel(model=None)
    vars(hosted)["facts"] = SimpleNamespace(family="tiny")
    model = Stream(lambda step: None, about=SimpleNamespace(hosted=hosted, family="comfyui.tiny"))
    with pytest.raises(ValueError, match=r"^time_shift: ComfyUI's own sampler has none; set it to 0$"):
        build(nodes.SamplePrompts, model=model, pipeline=hosted, **FEW, time_shift=20.0)

"""Sample Images."""

import pytest
import torch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.nodes import SampleImages
from comfyui_rollout.nodes.results import sample as sample_module
from comfyui_rollout.runs.sampling import sample
from comfyui_rollout.training.stream import Run
from PIL import Image

FEW = {"steps": 2, "count": 1, "labels": "0-2"}


@pytest.fixture
def samples(graph, wire):
    """``samples(graph, **settings)``: the stream of Sample Images on an untrained model."""

    def make(wired=None, **settings):
        wired = wired or graph()
        return wire(SampleImages, model=wired.model, schedule=wired.schedule, **{**FEW, **settings})

    return make


def test_an_untrained_model_is_not_sampled_while_wiring(build, graph, output):
    """It has nothing to show: only a stream for Optimizer Step comes out."""
    wired = graph()
    returned = build(SampleImages, model=wired.model, schedule=wired.schedule, **FEW)
    assert returned["ui"] == {}
    assert not output.exists()


def test_a_trained_model_is_sampled_right_away(build, graph, train, output):
    """One picture below the output folder, told to the canvas; again, it is overwritten by the same."""
    model = train(graph()).model
    for _ in range(2):
        returned = build(SampleImages, model=model, schedule=FlowMatching(), **FEW)
        (told,) = returned["ui"]["images"]
        with Image.open(output / told["subfolder"] / told["filename"]) as picture:
            assert picture.width > picture.height
    assert len(list((output / "samples").iterdir())) == 1


def test_images_come_out_for_other_nodes(build, graph, train, output):
    """As IMAGE (B, H, W, 3) in 0..1: the pixels of the picture on the node."""
    returned = build(SampleImages, model=train(graph()).model, schedule=FlowMatching(), steps=2, count=1, labels="3")
    images = returned["result"][1]
    assert images.shape == (1, 8, 8, 3)
    (told,) = returned["ui"]["images"]
    with Image.open(output / told["subfolder"] / told["filename"]) as picture:
        shown = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        scale = picture.width // 8
    first = shown.reshape(picture.height, picture.width, 3)[::scale, ::scale] / 255
    torch.testing.assert_close(first, images[0].cpu(), atol=0.5 / 255 + 1e-6, rtol=0)


def test_images_of_an_untrained_model_are_refused(build, graph):
    """Where somebody reads them; otherwise the stream goes out, and who reads images later is told why."""
    wired = graph()
    prompt = {"9": {"class_type": "PreviewImage", "inputs": {"images": [SampleImages.NODE_ID, 1]}}}
    inputs = {"model": wired.model, "schedule": wired.schedule, **FEW}
    assert build(SampleImages, **inputs, prompt={})["result"][1] is None
    with pytest.raises(ValueError, match="images: this model is not trained yet"):
        build(SampleImages, **inputs, prompt=prompt)


def test_others_make_room_for_the_samples(build, graph, train, host, monkeypatch):
    """Inside ComfyUI its own models may fill the card."""
    model = train(graph()).model
    asked = []
    monkeypatch.setattr(host, "make_room", lambda: asked.append("make_room"))
    monkeypatch.setattr(sample_module, "Run", lambda *args, **options: asked.append("run") or Run(*args, **options))
    build(SampleImages, model=model, schedule=FlowMatching(), **FEW)
    assert asked == ["make_room", "run"]


def test_inference_mode_does_not_matter_to_samples(build, graph, train, output):
    """Inside ComfyUI the picture is the same."""
    model = train(graph()).model
    pictures = []
    for mode in (True, False):
        with torch.inference_mode(mode):
            (told,) = build(SampleImages, model=model, schedule=FlowMatching(), **FEW)["ui"]["images"]
        pictures.append((output / told["subfolder"] / told["filename"]).read_bytes())
    assert pictures[0] == pictures[1]


def test_samples_can_be_guided(build, graph, train, pull):
    """By a saved and loaded model that knows its null class again; guidance 1 is a plain sample, to the bit."""
    wired = graph(model={"null_class": True})
    trained = train(wired).model
    assert trained.about.null_class
    assert trained.about.classes == 10
    inputs = {"model": trained, "schedule": wired.schedule, "labels": "3", "count": 2, "steps": 3}
    plain, off, strong = (
        pull(build(SampleImages, **inputs, **guidance)["result"][0])[0]
        for guidance in ({}, {"guidance": 1.0}, {"guidance": 5.0})
    )
    assert torch.equal(plain, off)
    assert not torch.allclose(plain, strong)
    with pytest.raises(ValueError, match="turn on null_class in New Model"):
        build(SampleImages, **{**inputs, "model": train(graph()).model, "guidance": 5.0})


def test_samples_depend_on_their_own_seed_only(samples, pull):
    """The same noise at every look, however far the run is; another seed, other images."""
    stream = samples()
    first, _ = pull(stream, 0)
    assert first.shape == (3, 1, 8, 8)
    assert torch.equal(pull(stream, 7)[0], first)
    assert not torch.equal(pull(samples(seed=1), 0)[0], first)


def test_each_class_gets_its_images(graph, pull, samples):
    """count images per label, in order; all classes for an empty line."""
    assert len(pull(samples(count=2))[0]) == 6
    assert len(pull(samples(labels=""))[0]) == 10
    plain = graph(model={"class_conditional": False})
    assert len(pull(samples(plain, count=5, labels=""))[0]) == 5


@pytest.mark.parametrize("labels", ["10", "cat"])
def test_labels_that_the_model_does_not_know_are_refused_while_wiring(samples, labels):
    """Not after an hour of training."""
    with pytest.raises(ValueError, match=f"labels '{labels}'"):
        samples(labels=labels)


def test_a_picture_has_a_column_for_each_class():
    """Class by class from left to right; without classes, as square as can be."""
    shades = torch.tensor([-1.0, -1, 0, 0, 1, 1]).reshape(6, 1, 1, 1).expand(6, 1, 48, 48)
    picture = SampleImages.picture(shades, [0, 1, 2], 2).convert("L")
    columns = [[picture.getpixel((24 + 50 * x, 24 + 50 * y)) for y in range(2)] for x in range(3)]
    assert columns == [[0, 0], [128, 128], [255, 255]]
    assert SampleImages.picture(shades[:4], [], 4).size == (98, 98)


def test_pictures_of_other_settings_are_other_files(build, graph, train, output):
    """A comparison of samplers, steps or seeds must not overwrite itself."""
    model = train(graph()).model
    for change in ({}, {"sampler": "dpm"}, {"steps": 3}, {"seed": 5}, {"unique_id": "4:2"}):
        build(SampleImages, model=model, schedule=FlowMatching(), **{**FEW, **change})
    names = sorted(path.name for path in (output / "samples").iterdir())
    assert names == [
        "node_4-2_euler_2_steps_seed_0.png",
        "node_RolloutSampleImages_dpm_2_steps_seed_0.png",
        "node_RolloutSampleImages_euler_2_steps_seed_0.png",
        "node_RolloutSampleImages_euler_2_steps_seed_5.png",
        "node_RolloutSampleImages_euler_3_steps_seed_0.png",
    ]


def test_chained_samples_of_a_trained_model_are_drawn_once(build, graph, train, output, monkeypatch):
    """The first one has made its picture already when the second one makes its own."""
    model, drawn = train(graph()).model, []

    def counted(*arguments, steps, **options):
        drawn.append(steps)
        return sample(*arguments, steps=steps, **options)

    monkeypatch.setattr("comfyui_rollout.nodes.results.sample.sample", counted)
    inputs = {"model": model, "schedule": FlowMatching(), "count": 1, "labels": "0"}
    first, _ = build(SampleImages, **inputs, unique_id="a", steps=1)["result"]
    build(SampleImages, **inputs, unique_id="b", steps=2, samples=first)
    assert drawn == [1, 2]
    assert len(list((output / "samples").iterdir())) == 2


def test_samples_can_be_chained(graph, wire, train, samples):
    """Several Sample Images are drawn at the same time: all leave their pictures."""
    wired = graph()
    first = samples(wired, unique_id="a")
    second = samples(wired, unique_id="b", samples=first, steps=1)
    run = train(wired, samples=second, steps=2)
    names = sorted(path.name for path in (run.folder / "samples").iterdir())
    assert names == ["a_step_000002.png", "b_step_000002.png"]

"""Encode Dataset: from a folder of photographs and a pretrained model to batches that it can be trained on."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.encodings.encoders import PretrainedEncoders
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.models.families import PRETRAINED
from PIL import Image
from sklearn.datasets import load_sample_images


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Two real photographs, one of them also turned on its side; two have captions."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        picture = Image.fromarray(pixels).resize((320, 213))
        picture.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"{name}, photo")
    picture.rotate(90, expand=True).save(folder / "tall.jpg")
    return folder


@pytest.fixture
def pretrained(build, tiny_pipeline):
    """``pretrained("sd")``: what Load Pretrained gives for a tiny pipeline: model, schedule and pipeline."""

    def load(family="sd"):
        found = build(nodes.LoadPretrained, path=str(tiny_pipeline(family)), storage="fp32")
        return found["result"] if isinstance(found, dict) else found

    return load


@pytest.fixture
def images(wire, photographs):
    """``images(...)``: the photographs as a data set of squares, or of buckets."""
    return lambda **options: wire(
        nodes.ImageFolderDataset, **{"folder": str(photographs), "size": 128, "batch_size": 2, **options}
    )


def test_the_node_says_what_it_found_and_how_far_it_is(build, images, pretrained, host):
    """Preflight on the node; progress from nothing to all, and none where all is there already."""
    inputs = {"dataset": images(buckets=True), "pipeline": pretrained()[2], "trigger_word": "sks"}
    text = build(nodes.EncodeDataset, **inputs)["ui"]["text"]
    assert text == [
        "3 images x 1 repeat / batch 2 = 2 steps per epoch",
        "captions: 2 of 3; none for tall.jpg (empty)",
        "buckets (height x width): 64x128: 2, 128x64: 1",
        "3 images cut by more than a tenth: china.png 25%, flower.png 25%, tall.jpg 25%; a larger size has more "
        "buckets",
        "fewer images than the batch (2), which holds some several times: 128x64 (1); lower batch_size or add images",
        "latents: 0 in the cache, 3 to encode (6 kB)",
        "captions: 0 in the cache, 4 to encode (the empty one included; on top of the latents)",
    ]
    progress = [event[1:] for event in host.told if event[0] == "progress"]
    assert (progress[0], progress[-1]) == (("RolloutEncodeDataset", 0, 7), ("RolloutEncodeDataset", 7, 7))
    host.told.clear()
    text = build(nodes.EncodeDataset, **inputs)["ui"]["text"]
    assert text[-2:] == [
        "latents: 3 in the cache, 0 to encode (0 B)",
        "captions: 4 in the cache, 0 to encode (the empty one included)",
    ]
    assert host.told == []


def test_others_make_room_for_the_encoders(build, images, pretrained, host, monkeypatch):
    """Before they are loaded; where nothing is missing, nobody is disturbed."""
    monkeypatch.setattr(host, "make_room", lambda: host.told.append(("make_room",)))
    inputs = {"dataset": images(), "pipeline": pretrained()[2]}
    build(nodes.EncodeDataset, **inputs)
    assert host.told[0] == ("make_room",)
    host.told.clear()
    build(nodes.EncodeDataset, **inputs)
    assert host.told == []


@pytest.mark.parametrize("family", sorted(family for family, kind in PRETRAINED.items() if kind.text_parts))
def test_a_batch_is_what_the_model_is_trained_on(
    wire, pull, images, pretrained, photographs, tiny_pipelines, monkeypatch, tmp_path, family
):
    """Latents of a bucket and the words in front of it, accepted by the network itself."""
    model, schedule, pipeline = pretrained(family)
    tiny_pipelines.small_pictures(monkeypatch)
    before = shutil.copytree(photographs, tmp_path / "before")  # each is made of itself
    control = str(before) if pipeline.info.kind.control == "must" else ""
    shown = images(buckets=True, control=control)
    dataset = wire(nodes.EncodeDataset, dataset=shown, pipeline=pipeline, caption_dropout=0.0)
    channels = pipeline.info.channels
    assert (dataset.about.family, dataset.about.channels, dataset.about.size) == (family, channels, None)
    shapes = set()
    for index in range(3):
        batch = wire(nodes.NoisyBatch, dataset=dataset, schedule=schedule)
        loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
        losses, step = pull(loss, index)
        clean = step.value(dataset)
        shapes.add(tuple(clean.latents.shape))
        assert losses.shape == (2,)
        assert losses.isfinite().all()
        assert clean.latents.dtype == torch.float32
    short, long = (side // PretrainedEncoders(pipeline).factor for side in (64, 128))
    assert shapes == {(2, channels, short, long), (2, channels, long, short)}


def test_a_class_conditional_model_is_trained_by_labels(wire, pull, images, pretrained, photographs, tmp_path):
    """Sub-folders in place of captions; no text encoder is there to be asked."""
    for name, label in (("china.png", "temple"), ("flower.png", "flower")):
        (tmp_path / "classes" / label).mkdir(parents=True)
        shutil.copy(photographs / name, tmp_path / "classes" / label)
    model, schedule, pipeline = pretrained("dit")
    dataset = images(folder=str(tmp_path / "classes"), size=64)
    dataset = wire(nodes.EncodeDataset, dataset=dataset, pipeline=pipeline, caption_dropout=0.0)
    assert dataset.about.classes == ("flower", "temple")
    loss = wire(nodes.DiffusionLoss, batch=wire(nodes.NoisyBatch, dataset=dataset, schedule=schedule), model=model)
    losses, step = pull(loss)
    assert losses.isfinite().all()
    assert step.value(dataset).conditioning["label"].tolist() in ([0, 1], [1, 0])


def test_every_setting_arrives(wire, pull, images, pretrained, tmp_path, output):
    """Trigger word, shuffled tags, dropout, and the folder."""
    inputs = {"dataset": images(), "pipeline": pretrained()[2], "cache_folder": str(tmp_path / "here")}
    dropped = wire(nodes.EncodeDataset, **inputs, caption_dropout=1.0)
    assert pull(dropped)[0].captions == ("", "")
    options = {"trigger_word": "sks", "shuffle_tags": True, "caption_variants": 20, "caption_dropout": 0.0}
    told = wire(nodes.EncodeDataset, **inputs, **options)
    seen = {caption for index in range(20) for caption in pull(told, index)[0].captions}
    orders = ["china, photo", "photo, china", "flower, photo", "photo, flower"]
    assert seen == {"sks", *(f"sks, {tags}" for tags in orders)}
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"latents", "text"}
    assert not (output / "encoded").exists()


def test_a_user_can_stop_and_go_on(build, images, pretrained, host, output):
    """What was encoded stays; the next time only the rest is."""
    host.stop_after = 2
    inputs = {"dataset": images(), "pipeline": pretrained()[2]}
    with pytest.raises(Interrupted):
        build(nodes.EncodeDataset, **inputs)
    kept = list((output / "encoded").rglob("*.safetensors"))
    assert len(kept) == 2
    host.stop_after = None
    host.told.clear()
    build(nodes.EncodeDataset, **inputs)
    assert max(event[3] for event in host.told) == 4


def test_the_model_trains_on_it_in_its_colours(wire, train, images, pretrained, output):
    """From the photographs to a run with rollouts; its previews show the photographs' colours, not three channels."""
    model, schedule, pipeline = pretrained()
    dataset = wire(nodes.EncodeDataset, dataset=images(), pipeline=pipeline)
    batch = wire(nodes.NoisyBatch, dataset=dataset, schedule=schedule)
    batch = wire(nodes.Rollout, batch=batch, model=model, max_step_offset=2, probability=1.0)
    loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
    graph = SimpleNamespace(loss=loss, model=model)
    run = train(graph, steps=1, preview_every=1)
    sheet = np.asarray(Image.open(next((run.folder / "rollouts").glob("*_frames.png"))).convert("RGB")).copy()
    object.__setattr__(dataset, "about", replace(dataset.about, colours=None))
    plain = train(graph, steps=1, preview_every=1)
    fallback = np.asarray(Image.open(next((plain.folder / "rollouts").glob("*_frames.png"))).convert("RGB"))
    assert sheet.shape == fallback.shape
    assert np.abs(sheet.astype(float) - fallback).mean() > 5


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"size": 96}, "size: the model takes images whose sides are multiples of 64, not 96 x 96"),
        ({"color": "L"}, "color: the model's VAE reads RGB"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(build, images, pretrained, monkeypatch, dataset, words):
    """One line with the remedy."""
    monkeypatch.setattr("comfyui_rollout.data.encodings.encoders.load_parts", None)
    with pytest.raises(ValueError, match=words):
        build(nodes.EncodeDataset, dataset=images(**dataset), pipeline=pretrained()[2])


def test_only_images_are_encoded(build, wire, pretrained):
    """Digits are no photographs, and what is encoded is so already."""
    with pytest.raises(ValueError, match="dataset: wire an Image Folder Dataset"):
        build(nodes.EncodeDataset, dataset=wire(nodes.DigitsDataset), pipeline=pretrained()[2])


def test_an_emptied_cache_is_noticed(images, build, pretrained, output):
    """ComfyUI keeps what a node gave: it must encode again when somebody removed the files."""
    changed = nodes.EncodeDataset.IS_CHANGED
    nothing = changed(cache_folder="")
    build(nodes.EncodeDataset, dataset=images(), pipeline=pretrained()[2])
    full = changed(cache_folder="")
    assert nothing != full == changed(cache_folder="")
    build(nodes.EncodeDataset, dataset=images(), pipeline=pretrained()[2], trigger_word="sks")
    assert changed(cache_folder="") == full  # encoding is no reason to look at every image again
    shutil.rmtree(output / "encoded" / "latents")
    assert changed(cache_folder="") != full
    shutil.rmtree(output / "encoded")
    assert changed(cache_folder="") == nothing


def test_a_new_model_can_learn_the_latents(wire, train, images, pretrained):
    """From scratch, in the space of a pretrained VAE; the data set says size and channels. Buckets have no one size."""
    pipeline = pretrained()[2]
    dataset = wire(nodes.EncodeDataset, dataset=images(), pipeline=pipeline)
    model = wire(nodes.NewModel, dataset=dataset, width=8, depth=1)
    assert (model.about.channels, model.about.size) == (4, 16)
    batch = wire(nodes.NoisyBatch, dataset=dataset, schedule=wire(nodes.FlowMatchingSchedule))
    loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
    run = train(SimpleNamespace(loss=loss, model=model))
    assert run.facts["status"] == "finished"
    oblong = wire(nodes.EncodeDataset, dataset=images(buckets=True), pipeline=pipeline)
    with pytest.raises(ValueError, match="turn buckets off"):
        wire(nodes.NewModel, dataset=oblong)


def test_a_pretrained_model_needs_its_own_latents(wire, train, images, pretrained):
    """Pixels, and another family's latents, are refused before anything is loaded; the line says what to do."""
    model, schedule, _ = pretrained("sd")
    foreign = wire(nodes.EncodeDataset, dataset=images(), pipeline=pretrained("sdxl")[2])
    other = r"encoded for another model \(sdxl\): wire the pipeline of the model that is trained into it"
    for dataset, words in ((images(), "made of pixels: put an Encode Dataset node behind it"), (foreign, other)):
        batch = wire(nodes.NoisyBatch, dataset=dataset, schedule=schedule)
        loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
        with pytest.raises(ValueError, match=words):
            train(SimpleNamespace(loss=loss, model=model))

"""Exposure Bias Probe."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.nodes import ExposureBiasProbe
from PIL import Image

STATISTICS = {"variance", "output", "band_1", "band_2", "band_3", "band_4"}


@pytest.fixture
def probe(build):
    """``probe(graph, model)``: a small measurement; what the node tells."""

    def run(wired, model, **settings):
        inputs = {"model": model, "schedule": wired.schedule, "dataset": wired.dataset, "count": 16, "steps": 3}
        return build(ExposureBiasProbe, **inputs, **settings)["ui"]

    return run


def numbers(output, number=1):
    text = (output / "probes" / f"exposure_bias_{number:05d}" / "exposure_bias.json").read_text()
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_probe_leaves_numbers_and_a_picture(graph, train, probe, output):
    """Below output/probes, all statistics at each level, and the picture on the node."""
    wired = graph()
    told = probe(wired, train(wired).model)
    found = numbers(output)
    assert [level["timestep"] for level in found["levels"]] == pytest.approx([1000, 2000 / 3, 1000 / 3])
    for level in found["levels"]:
        assert level["sampled"].keys() == level["teacher_forced"].keys() == level["noise_floor"].keys() == STATISTICS
    mean = found["mean_absolute_log_ratio"]
    assert mean.keys() == STATISTICS | {f"{name}_floor" for name in STATISTICS}
    ratios = [math.log(level["sampled"]["variance"] / level["teacher_forced"]["variance"]) for level in found["levels"]]
    assert mean["variance"] == pytest.approx(sum(map(abs, ratios)) / 3)
    (image,) = told["images"]
    with Image.open(output / image["subfolder"] / image["filename"]) as picture:
        picture.load()
    assert (image["subfolder"], image["filename"]) == ("probes/exposure_bias_00001", "exposure_bias.png")


def test_the_finding_is_one_sentence(graph, train, probe, output):
    """In per cent, beside what chance alone does."""
    wired = graph()
    (text,) = probe(wired, train(wired).model)["text"]
    mean = numbers(output)["mean_absolute_log_ratio"]
    for words in ("mean bias over the sampling path", "lowest", "highest frequencies"):
        assert words in text
    assert f"variance {mean['variance']:.1%} (chance {mean['variance_floor']:.1%})" in text


def test_a_probe_repeats_itself(graph, train, probe, output):
    """The same seed gives the same numbers, also inside ComfyUI's inference mode; another seed gives others."""
    wired = graph(model={"class_conditional": False})
    model = train(wired).model
    probe(wired, model)
    with torch.inference_mode():
        probe(wired, model)
    probe(wired, model, seed=1)
    assert numbers(output, 1) == numbers(output, 2) != numbers(output, 3)


def test_an_untrained_model_is_refused(graph, probe, output):
    """Random weights have no bias worth a measurement."""
    wired = graph()
    with pytest.raises(ValueError, match=r"^model: this is a new model with random weights"):
        probe(wired, wired.model)
    assert not output.exists()


@pytest.fixture
def captioned(build, wire, tiny_pipeline, photos):
    """``captioned(family, **images)``: a trained LoRA on a model, and photographs with captions of unequal length."""

    def connect(family, **images):
        loaded = build(nodes.LoadPretrained, path=str(tiny_pipeline(family)), storage="fp32")
        model, schedule, pipeline = loaded["result"]
        pictures = wire(nodes.ImageFolderDataset, folder=str(photos), batch_size=3, **{"size": 64, **images})
        # An image in some has no caption: its text is shorter.
        dataset = wire(nodes.EncodeDataset, dataset=pictures, pipeline=pipeline, caption_dropout=0.5)
        model = wire(nodes.AddLora, model=model, rank=2)
        noisy = wire(nodes.NoisyBatch, dataset=dataset, schedule=schedule)
        loss = wire(nodes.DiffusionLoss, batch=noisy, model=model)
        optimizer = wire(nodes.Optimizer, learning_rate=0.01)
        trained, _ = build(nodes.OptimizerStep, loss=loss, model=model, optimizer=optimizer, steps=2)["result"]
        return SimpleNamespace(dataset=dataset, schedule=schedule, model=trained)

    return connect


@pytest.mark.parametrize("family", ["sd", "sdxl", "zimage"])
def test_a_model_that_reads_captions_is_told_them(captioned, probe, output, family, monkeypatch):
    """Those of the images, whatever their lengths; never more items at once than training has."""
    asked, real = [], PRETRAINED[family].__call__

    def call(self, x, *told):
        asked.append(len(x))
        return real(self, x, *told)

    monkeypatch.setattr(PRETRAINED[family], "__call__", call)
    wired = captioned(family)
    probe(wired, wired.model)
    assert numbers(output)["mean_absolute_log_ratio"].keys() >= STATISTICS
    assert max(asked) == 3


def test_images_of_several_sizes_are_refused(captioned, probe):
    """In one line, and not by the tensors that do not fit together."""
    wired = captioned("sd", buckets=True, size=128)
    with pytest.raises(ValueError, match=r"^dataset: statistics are of images of one size; turn buckets off"):
        probe(wired, wired.model)

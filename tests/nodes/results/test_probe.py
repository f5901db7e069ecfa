"""Exposure Bias Probe."""

import json
import math

import pytest
import torch
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

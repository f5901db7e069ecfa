"""Preview Latents and Plot Metrics."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_rollout.nodes import PlotMetrics, PreviewLatents
from comfyui_rollout.training.stream import Run, Step
from PIL import Image

EVERY = {"max_step_offset": 2, "probability": 1.0, "step_size": 50.0}


def test_a_preview_changes_no_bit(graph, train, same_bits, host):
    """Looking must not change what is seen: the weights are those of the graph without it."""
    host.wanted.add("preview")
    looked = train(graph(rollout=EVERY, preview={"show": "rollout"}), preview_every=1)
    assert [event for event in host.told if event[0] == "show"]
    assert same_bits(looked.weights, train(graph(rollout=EVERY), preview_every=0).weights)


@pytest.mark.parametrize("show", PreviewLatents.INPUT_TYPES()["required"]["show"][0])
def test_everything_on_the_wire_can_be_shown(graph, pull, host, show):
    """Each choice draws a picture, of batches with and without rollouts, and passes the batch on."""
    host.wanted.add("preview")
    for rollout in (None, EVERY):
        stream = graph(rollout=rollout, preview={"show": show}).batch
        batch, step = pull(stream, host=host)
        assert batch is step.value(stream.inputs["batch"])
    assert [event[:3] for event in host.told] == [("show", "RolloutPreviewLatents", "preview")] * 2


@pytest.fixture
def run(output):
    folder = output / "rollout" / "run_00001"
    folder.mkdir(parents=True)
    rows = [{"step": step, "loss": 1 / (step + 1), "drift": 0.1, "seconds": {"4": 1.0}} for step in range(5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_curves_are_drawn_and_kept(build, run):
    """metrics.png in the run's folder, one panel a metric, shown on the node."""
    told = build(PlotMetrics, run=run, metrics="loss, drift")
    assert told["ui"]["images"] == [{"filename": "metrics.png", "subfolder": "rollout/run_00001", "type": "output"}]
    with Image.open(run / "metrics.png") as two:
        height = two.height
    build(PlotMetrics, run=run, metrics="loss", log_scale=True, smoothing=0.0)
    with Image.open(run / "metrics.png") as one:
        assert one.height < height


def test_curves_that_are_missing_are_named_beside_the_others(build, run):
    """One unknown name must not cost the picture of the known ones."""
    told = build(PlotMetrics, run=run, metrics="loss, lost, seconds")["ui"]
    assert told["text"] == ["this run has no lost", "this run has no seconds"]
    assert told["images"]
    both = (run / "metrics.png").read_bytes()
    assert "text" not in build(PlotMetrics, run=run, metrics="loss")["ui"]
    assert (run / "metrics.png").read_bytes() == both


@pytest.mark.parametrize("names", ["lost", "", "seconds", "lost, seconds"])
def test_only_unknown_metrics_are_refused_with_those_there_are(build, run, names):
    """The message lists what can be plotted."""
    with pytest.raises(ValueError, match=rf"^metrics: this run has no '{names}', but drift, loss, step$"):
        build(PlotMetrics, run=run, metrics=names)
    assert not (run / "metrics.png").exists()


def test_the_default_metrics_are_those_of_every_run(build, graph, train):
    """Plot Metrics works as it comes out of the menu."""
    run = train(graph())
    build(PlotMetrics, run=run.folder)
    assert (run.folder / "metrics.png").is_file()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("show", ["x", "rollout"])
def test_every_picture_has_the_data_sets_own_colours(graph, host, show):
    """Noisy Batch, Rollout and Preview Latents show an autoencoder's latents as the pictures that they are."""
    wired = graph(rollout=EVERY, preview={"show": show})
    red = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    object.__setattr__(wired.dataset, "about", replace(wired.dataset.about, colours=red))
    host.wanted, seen = {"noisy", "rollout", "preview"}, {}
    host.show = lambda node_id, kind, update, picture: seen.setdefault(kind, picture)
    Step(Run(wired.loss, host=host), 0, watched=True).value(wired.loss)
    assert seen.keys() == host.wanted
    for picture in seen.values():
        pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert (pixels[..., 0] > pixels[..., 1] + 20).any()

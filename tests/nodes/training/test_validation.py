"""The look that measures the validation loss: it changes nothing, and its curve says what the saved model does."""

import json

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.data import Digits, whole_batches
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.validation import validation_losses
from comfyui_rollout.runs.looks import generators_of
from comfyui_rollout.training.stream import Run
from PIL import Image


def curve(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}


class Few(Digits):
    """Five digits, for whoever must not wait."""

    def __init__(self):
        super().__init__()
        self.latents, self.labels = self.latents[-5:], self.labels[-5:]
        self.info = type(self.info)("few", 5, 1, 8, self.info.classes)


@pytest.fixture
def few(wire):
    stream = wire(nodes.DigitsDataset, batch_size=4)
    stream.inputs["dataset"] = Few()
    return stream


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}])
def test_training_is_the_same_to_the_bit_with_and_without_validation(graph, train, few, same_bits, options):
    """Rollouts, dropout of labels and averaged weights included."""
    rollout = {"max_step_offset": 2, "probability": 1.0, "step_size": 50.0}
    with_it = train(graph(rollout=rollout), steps=6, validation=few, validate_every=2, **options)
    without = train(graph(rollout=rollout), steps=6, **options)
    assert same_bits(with_it.weights, without.weights)
    assert [*curve(with_it.folder)] == [0, 1, 3, 5]
    assert curve(without.folder) == {}
    assert (with_it.folder / "loss.png").is_file()


def test_the_last_point_is_the_loss_of_the_saved_model(graph, train, few):
    """Averaged weights, as they are saved; computed once more from the file, without the look."""
    done = train(graph(), steps=5, validation=few, validate_every=100, ema_decay=0.5)
    model = Run(done.model).value(done.model)
    data, found = Few(), []
    for items in whole_batches(data.info, 4):
        batch = data.batch(items, generators_of(items, "cut"))
        with model.evaluating():
            found.append(validation_losses(
                model, batch.latents, batch.conditioning, FlowMatching(), generators_of(items, "noise"), levels=4
            ))  # fmt: skip
    assert [*curve(done.folder)] == [0, 4]
    assert curve(done.folder)[4] == pytest.approx(float(torch.cat(found).mean()), rel=1e-5)


def test_the_curve_of_a_resumed_run_is_that_of_one_that_never_stopped(graph, train, few):
    """To the bit, the points before the stop and behind it."""
    whole = train(graph(), steps=6, validation=few, validate_every=2)
    half = train(graph(), steps=4, validation=few, validate_every=2)
    resumed = train(graph(), steps=6, validation=few, validate_every=2, resume=half.folder.name)
    assert curve(resumed.folder) == curve(whole.folder)


def test_a_share_of_a_folder_is_measured_and_never_trained(graph, train, wire, tmp_path):
    """No wire needed: Image Folder Dataset keeps some back, and Optimizer Step finds them."""
    for number in range(10):
        Image.new("L", (8, 8), 20 * number).save(tmp_path / f"{number}.png")
    data = wire(nodes.ImageFolderDataset, folder=str(tmp_path), size=8, batch_size=4, color="L", validation=0.2)
    model = wire(nodes.NewModel, dataset=data, width=8, depth=1)
    batch = wire(nodes.NoisyBatch, dataset=data, schedule=wire(nodes.FlowMatchingSchedule))
    wired = type("Graph", (), {"loss": wire(nodes.DiffusionLoss, batch=batch, model=model), "model": model})
    assert [*curve(train(wired, steps=3, validate_every=2).folder)] == [0, 1, 2]
    assert curve(train(wired, steps=3, validate_every=0).folder) == {}
    assert data.about.count == 8


def test_a_data_set_of_other_latents_is_refused_before_training(graph, train, wire):
    """As one that is trained."""
    with pytest.raises(ValueError, match=r"made for 1 x 8 x 8 images, and node .* gives 1 x 16 x 16"):
        train(graph(), validation=wire(nodes.DigitsDataset, size=16, batch_size=4))

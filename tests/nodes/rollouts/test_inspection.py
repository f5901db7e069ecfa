"""The recorded rollouts: always the same items, at no price for the training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.models.vae_preview import VaeColours, VaePreviews
from comfyui_rollout.runs.pictures.inspection import MOST_STATES, Film, Inspected, record, sheet_of
from comfyui_rollout.training.stream import Run, Step, Stream
from PIL import Image

PLAN = {"max_step_offset": 5, "step_size": 50.0, "sampler": "euler"}


def films(run):
    """What a run kept, by training step: the facts, and the sheet (2, states, height, items, width)."""
    found = {}
    for path in sorted((run.folder / "rollouts").glob("*_frames.json")):
        facts = json.loads(path.read_text())
        pixels = np.asarray(Image.open(path.with_suffix(".png")).convert("L"))
        width, height = facts["cell"]
        found[facts["step"]] = facts, pixels.reshape(2, facts["states"], height, facts["items"], width)
    return found


@pytest.mark.parametrize("plan", [{"probability": 0.5}, {"probability": 0.0}, {"start_step": 2, "probability": 1.0}])
def test_looking_changes_no_bit(graph, train, same_bits, plan):
    """Weights and metrics of a run that is looked at every step are those of one that is not."""
    wired = graph(rollout={**PLAN, **plan}, model={"family": "dit", "width": 32})
    seen, unseen = train(wired, preview_every=1), train(wired, preview_every=0)
    assert films(seen)
    assert not films(unseen)
    assert same_bits(seen.weights, unseen.weights)
    rows = [(run.folder / "metrics.jsonl").read_text().splitlines() for run in (seen, unseen)]
    for first, second in zip(*[[json.loads(line) for line in lines] for lines in rows], strict=True):
        timed = {"seconds", "steps_per_second", "machine"}
        assert {name: first[name] for name in first.keys() - timed} == {
            name: second[name] for name in second.keys() - timed
        }


def test_items_are_the_same_at_every_step(graph, train):
    """Only the weights differ: the source states are equal to the bit, what the model makes of them is not."""
    found = films(train(graph(rollout=PLAN), steps=5, preview_every=2))
    assert list(found) == [0, 2, 4]
    (first, one), (last, other) = found[0], found[4]
    assert {**first, "step": 0, "drift": 0} == {**last, "step": 0, "drift": 0}
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1, 0], other[1, 0])
    assert not np.array_equal(one[1, -1], other[1, -1])


def test_the_facts_describe_the_sheet(graph, train):
    """Lengths of all sizes; every item goes from its source to its target and stays there; the drift begins at 0."""
    facts, sheet = films(train(graph(rollout=PLAN), steps=1))[0]
    assert (facts["node"], facts["sampler"], facts["items"]) == ("Rollout", "euler", 4)
    assert facts["solver_steps"] == list(range(max(facts["lengths"]) + 1))
    assert facts["cell"] == [8, 8]
    assert sheet.shape == (2, facts["states"], 8, 4, 8)
    assert 1 <= min(facts["lengths"]) < max(facts["lengths"]) <= 5
    timesteps, drift = np.array(facts["timesteps"]), np.array(facts["drift"])
    assert (np.diff(timesteps, axis=0) <= 0).all()
    assert np.allclose(np.array(facts["sigmas"]) * 1000, timesteps, atol=0.1)
    for item, length in enumerate(facts["lengths"]):
        assert timesteps[0, item] - timesteps[-1, item] <= length * 50 + 1e-6
        assert len(set(timesteps[length:, item])) == 1
        assert drift[-1, item] > 0
    assert not drift[0].any()
    assert np.array_equal(sheet[0, 0], sheet[1, 0])


def test_the_host_is_told_where_the_frames_are(graph, host, train, monkeypatch):
    """Browsers fetch them from the output folder."""
    told = []
    monkeypatch.setattr(host, "frames", lambda *arguments: told.append(arguments))
    run = train(graph(rollout=PLAN), steps=3, preview_every=2)
    for (node, update, _, facts, files), step in zip(told, (0, 2), strict=True):
        assert (node, update, facts["step"]) == ("Rollout", step, step)
        folder = Path(host.output_folder, files["subfolder"])
        assert folder == run.folder / "rollouts"
        assert (folder / files["image"]).is_file()
        assert json.loads((folder / files["data"]).read_text()) == facts


def test_two_rollouts_are_told_apart(graph, train, wire):
    """Each node has films of its own, also one inside of a subgraph."""
    wired = graph(rollout=PLAN)
    noisy = wired.batch.inputs["batch"]
    other = wire(nodes.Rollout, batch=noisy, model=wired.model, unique_id="12:3", **PLAN)
    losses = {"first": wired.loss, "second": wire(nodes.DiffusionLoss, batch=other, model=wired.model)}
    wired.loss = Stream(lambda step, first, second: first + second, losses)
    names = sorted(path.name for path in (train(wired, steps=1).folder / "rollouts").glob("*_frames.png"))
    assert names == ["12-3_step_000000_frames.png", "Rollout_step_000000_frames.png"]


def test_nothing_to_roll_out_leaves_nothing(graph, train):
    """max_step_offset 0 turns the node off."""
    run = train(graph(rollout={"probability": 1.0}), steps=1)
    assert not list((run.folder / "rollouts").glob("*_frames*"))


def test_a_long_rollout_is_thinned_out(graph):
    """The sheet stays small enough for a browser; its ends are kept."""
    wired = graph(rollout=PLAN)
    step = Step(Run(wired.loss), 0)
    batch, model, solve = step.value(wired.batch), step.value(wired.model), wired.batch.inputs["solve"]
    items = Inspected.choose(step, batch, RolloutPlan(max_step_offset=200))
    film = record(model, items, solve)
    assert len(film.steps) == len(film.rolled_out) == MOST_STATES
    assert (film.steps[0], film.steps[-1]) == (0, int(items.draw.lengths.max()))
    assert torch.equal(film.rolled_out[0], film.teacher_forced[0])


def test_films_are_in_the_data_sets_own_colours(graph, train):
    """The sheet, too, shows an autoencoder's latents as the picture that they are."""
    wired = graph(rollout=PLAN)
    plain = train(wired)
    info = replace(wired.dataset.about, colours=torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]))
    object.__setattr__(wired.dataset, "about", info)
    told = train(wired)
    sheets = [Image.open(next((run.folder / "rollouts").glob("*_000000_frames.png"))) for run in (plain, told)]
    red, green, _ = np.asarray(sheets[1].convert("RGB")).transpose(2, 0, 1)
    assert (green == 0).all()
    assert (red == np.asarray(sheets[0].convert("L"))).all()


def test_films_do_not_wait_for_a_vae():
    """It would decode dozens of pictures at full size for cells of 64 pixels; the data set's linear map is enough."""
    states = torch.rand(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    film, linear = Film([0, 1, 2], torch.zeros(3, 2), states, states), torch.rand(5, 3)
    previews = VaeColours(VaePreviews(None, "vae", linear), torch.device("cpu"))
    sheet, cell = sheet_of(film, previews)
    assert "vae" not in vars(previews)
    assert cell == (8, 8)
    assert np.array_equal(np.asarray(sheet), np.asarray(sheet_of(film, linear)[0]))

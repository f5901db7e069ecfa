"""A run from plain Python: one call that trains, with looks beside it, and leaves a folder."""

import json
import re
from pathlib import Path

import pytest
import torch
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.runs.fit import fit, other_batch_in_words
from comfyui_rollout.runs.looks import Checkpoint, Sample, Tell, TimeBudget
from comfyui_rollout.runs.run_folder import read_metrics
from comfyui_rollout.runs.session import Look
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import StepError, Stream

SETTINGS = OptimizerSettings("sgd", learning_rate=0.1, weight_decay=0.0, beta1=0.0)


class Told(Look):
    """Remembers when it was called."""

    def __init__(self):
        self.calls = []

    def after(self, session):
        self.calls.append(("after", session.reached))

    def read(self, session, rows):
        self.calls.append(("read", [row["step"] for row in rows]))

    def finish(self, session):
        self.calls.append(("finish", session.reached))

    def conclude(self, session):
        self.calls.append(("conclude", session.reached))


@pytest.fixture
def fitted(regression):
    """``fitted(steps=..., looks=...)``: a linear regression, without a folder unless one is named."""

    def run(network=None, **options):
        loss, model, _ = regression(network, keep_mode=None)
        return fit(loss, model, SETTINGS, device="cpu", **options)

    return run


def test_a_fit_needs_no_folder_and_no_host(fitted):
    """Three lines of Python train; the session has the live model and knows how far it came."""
    rows = []
    session = fitted(steps=25, looks=[Tell(rows.extend)])
    assert [row["step"] for row in rows] == list(range(25))
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert (session.reached, session.folder) == (25, None)


def test_looks_are_called_in_their_order(fitted):
    """After each update; read whenever the numbers were; finish once; and conclude last of all."""
    told = Told()
    fitted(steps=11, looks=[told])
    assert told.calls == [
        *(("after", done) for done in range(1, 10)),
        *(("read", list(range(10))), ("after", 10), ("after", 11)),
        *(("read", [10]), ("finish", 11), ("conclude", 11)),
    ]


def test_a_look_that_stops_the_run_is_concluded(fitted):
    """Whoever raises, all looks conclude, and nothing is said to have finished."""
    told = Told()

    class Stop(Look):
        def after(self, session):
            raise Interrupted("stopped by the user")

    with pytest.raises(Interrupted):
        fitted(steps=5, looks=[told, Stop()])
    assert [call[0] for call in told.calls] == ["after", "read", "conclude"]


def test_a_look_that_cannot_conclude_hides_no_other(fitted, caplog):
    """The others conclude all the same; a run that had gone well then ends with that error, another with its own."""
    told = Told()

    class Full(Look):
        def conclude(self, session):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fitted(steps=2, looks=[Full(), told])
    assert told.calls[-1] == ("conclude", 2)
    assert "disk full" not in caplog.text  # it is said once, as what ended the run

    class Stop(Look):
        def after(self, session):
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        fitted(steps=2, looks=[Full(), Stop()])
    assert "Full could not conclude: disk full" in caplog.text


def test_a_folder_has_the_run(fitted, tmp_path):
    """Numbered, with metrics, facts, state, model and curve; the next one does not touch it."""

    class Saved(torch.nn.Linear):
        def save_config(self, folder):
            (Path(folder) / "config.json").write_text("{}")

    for number in (1, 2):
        session = fitted(Saved(4, 3), steps=3, folder=tmp_path / "line", files={"notes.json": {"a": 1}})
        assert session.folder.folder.name == f"line_0000{number}"
    folder = session.folder.folder
    assert len(read_metrics(folder)) == 3
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert json.loads((folder / "notes.json").read_text()) == {"a": 1}
    assert {path.name for path in folder.iterdir()} >= {"model", "state", "loss.png", "metrics.jsonl"}
    resumed = fitted(Saved(4, 3), steps=5, resume=find_state(folder))
    assert (resumed.folder.folder, resumed.reached, len(read_metrics(folder))) == (folder, 5, 5)
    assert resumed.notes[0].startswith("line_00002 goes on after step 3 of 5")


def test_a_time_budget_ends_the_run_as_finished(fitted, monkeypatch):
    """It comes to its end as if so many steps had been meant: samples are drawn, looks finish."""
    now = iter(range(0, 1000, 30))
    monkeypatch.setattr("comfyui_rollout.runs.looks.time.monotonic", lambda: next(now))
    told = Told()
    session = fitted(steps=1000, looks=[TimeBudget(minutes=2), told])
    assert session.reached < 10
    assert told.calls[-2:] == [("finish", session.reached), ("conclude", session.reached)]


def test_samples_are_drawn_on_the_way_and_once_at_the_end(fitted):
    """Every so many updates; the last round belongs to the end."""
    drawn = []
    samples = Stream(lambda step: drawn.append(step.update), node_id="samples")
    fitted(steps=6, looks=[Sample(samples, every=2)])
    assert drawn == [2, 4, 6]


def spoilt_weights(session):
    with torch.no_grad():
        session.trainer.parameters[0].fill_(float("nan"))


@pytest.mark.parametrize("at", [3, 4], ids=["at a copy on the way", "at the end"])
def test_weights_that_are_no_numbers_push_out_no_copy(fitted, tmp_path, at):
    """The loss of the newest update looks well and its weights do not: nothing is saved or deleted for them."""

    class Saved(torch.nn.Linear):
        def save_config(self, folder):
            (Path(folder) / "config.json").write_text("{}")

    class Spoil(Look):
        def after(self, session):
            if session.reached == at:
                spoilt_weights(session)

    looks = [Spoil(), Checkpoint(every=1, keep=1)]
    where = rf"^node train \(Optimizer Step\), step {at - 1}: the trained weights are no finite numbers any more; lower"
    with pytest.raises(StepError, match=where):
        fitted(Saved(4, 3), steps=4, folder=tmp_path / "run", looks=looks)
    folder = tmp_path / "run_00001"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step_{min(at - 1, 3):06d}"]
    assert find_state(folder).step == min(at - 1, 3)
    assert not (folder / "model").exists()
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["status"], facts["steps_done"]) == ("failed", at)


def batch(size, processes, accumulation=1):
    return {"batch_size": size, "processes": processes, "accumulation": accumulation}


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (batch(8, 2), batch(16, 1), None),
        (batch(8, 2, 3), batch(4, 4, 3), None),
        (batch(8, 2), batch(8, 1), "had 16 items .* now has 8 .*; batch_size 16 and accumulation 1 keep it"),
        (batch(8, 2), batch(8, 4), "had 16 items .* now has 32 .*; batch_size 4 and accumulation 1 keep it"),
        (batch(8, 1, 2), batch(16, 1, 1), "had 16 items .* now has 16 .*; batch_size 8 and accumulation 2 keep it"),
        (batch(3, 1), batch(3, 2), "had 3 items .* now has 6 .*not exactly where it was$"),
        (None, batch(8, 1), None),
        ({"batch_size": "many", "processes": 1, "accumulation": 1}, batch(8, 1), None),
        (batch(8, 1), {}, None),
    ],
)
def test_a_resume_with_another_global_batch_is_told(before, now, words):
    """Batches are drawn by their number: of another size, or in other parts of an update, they are others."""
    said = other_batch_in_words(before, now)
    assert len(said) == (words is not None)
    assert all(re.search(words, line) for line in said)

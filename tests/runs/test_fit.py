"""A run from plain Python: one call that trains, with looks beside it, and leaves a folder."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from comfyui_rollout.hosts.host import Host, Interrupted
from comfyui_rollout.runs.fit import other_batch_in_words
from comfyui_rollout.runs.looks import Checkpoint, Tell
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.runs.session import Look
from comfyui_rollout.training.state import find_state


def test_a_fit_needs_no_folder_and_no_host(fitted):
    """Three lines of Python train; the session has the live model and knows how far it came."""
    rows = []
    session = fitted(steps=25, looks=[Tell(rows.extend)])
    assert [row["step"] for row in rows] == list(range(25))
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert (session.reached, session.folder) == (25, None)


def test_a_folder_has_the_run(fitted, tmp_path):
    """Numbered, with metrics, facts, state, model and curve, of any module; the next one does not touch it."""
    for number in (1, 2):
        session = fitted(torch.nn.Linear(4, 3), steps=3, folder=tmp_path / "line", files={"notes.json": {"a": 1}})
        assert session.folder.folder.name == f"line_0000{number}"
    folder = session.folder.folder
    assert len(read_metrics(folder)) == 3
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert json.loads((folder / "notes.json").read_text()) == {"a": 1}
    assert [path.name for path in (folder / "model").iterdir()] == ["diffusion_pytorch_model.safetensors"]
    assert {path.name for path in folder.iterdir()} >= {"model", "state", "loss.png", "metrics.jsonl"}
    resumed = fitted(torch.nn.Linear(4, 3), steps=5, resume=find_state(str(folder)))
    assert (resumed.folder.folder, resumed.reached, len(read_metrics(folder))) == (folder, 5, 5)
    assert resumed.notes[0].startswith("line_00002 goes on after step 3 of 5")


def test_files_that_cannot_be_written_fail_the_run(fitted, tmp_path):
    """As on a full disk: its folder does not say for ever that it runs."""
    with pytest.raises(TypeError):
        fitted(steps=3, folder=tmp_path / "line", files={"notes.json": torch.zeros(1)})
    assert json.loads((tmp_path / "line_00001" / "run.json").read_text())["status"] == "failed"


def test_copies_on_the_way_need_a_folder(fitted):
    """Said before anything is trained."""
    with pytest.raises(ValueError, match="the run has no folder for it"):
        fitted(steps=3, looks=[Checkpoint(every=2)])


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


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (None, ("finished", "")),
        (ValueError("disk full"), ("failed", "disk full")),
        (Interrupted("stopped by the user"), ("interrupted", "stopped by the user")),
    ],
    ids=["finished", "failed", "interrupted"],
)
def test_the_host_hears_how_the_run_of_which_folder_ended(fitted, tmp_path, stop, said):
    """Once, whatever happens: by it a command is started, and a browser told."""
    heard = []

    class Ears(Host):
        def ended(self, folder, status, message=""):
            heard.append((folder, status, message))

    class Ends(Look):
        def finish(self, session):
            if stop:
                raise stop

    class Saved(torch.nn.Linear):
        def save_config(self, folder):
            (Path(folder) / "config.json").write_text("{}")

    with pytest.raises(type(stop)) if stop else nullcontext():
        fitted(torch.nn.Linear(4, 3), steps=2, folder=tmp_path / "line", host=Ears(), looks=[Ends()])
    assert heard == [(tmp_path / "line_00001", *said)]

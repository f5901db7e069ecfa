"""A session: when its looks are called, whatever happens."""

import json
from pathlib import Path

import pytest
import torch
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.runs.looks import Checkpoint
from comfyui_rollout.runs.session import Look
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import StepError
from told import Told


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

"""Half-written leftovers of killed programs are removed, and nothing of programs that live."""

import os
import time

import pytest
from comfyui_rollout.files.lock import held
from comfyui_rollout.runs.clean import OLD, clean


@pytest.fixture
def output(tmp_path):
    """A run with something unfinished in it and in its state folder, and something unfinished beside it."""
    run = tmp_path / "rollout" / "run_00001"
    (run / "state").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for place in (run, run / "state", tmp_path / "rollout"):
        (place / ".a.json-12345678").mkdir()
    return tmp_path


def left(output):
    return sorted(path.relative_to(output).as_posix() for path in output.rglob(".*"))


def test_leftovers_of_a_free_run_go_at_once_and_others_when_they_are_old(output):
    """Nobody writes in a run that no program holds; elsewhere somebody may, for an hour."""
    assert len(clean(output)) == 2
    assert left(output) == ["rollout/.a.json-12345678"]
    old = time.time() - OLD - 1
    os.utime(output / "rollout" / ".a.json-12345678", (old, old))
    assert [path.name for path in clean(output)] == [".a.json-12345678"]
    assert left(output) == []


def test_a_run_under_way_is_left_alone(output):
    """Whatever is unfinished in it, is being finished."""
    with held(output / "rollout" / "run_00001"):
        assert clean(output) == []
    assert len(left(output)) == 3

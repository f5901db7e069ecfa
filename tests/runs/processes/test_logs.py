"""Each of several processes keeps its own log in the run's folder."""

import logging
from types import SimpleNamespace

import pytest
from comfyui_rollout.hosts.processes import ONE
from comfyui_rollout.runs.processes.logs import log_kept, logs_in, parsed

OURS = logging.getLogger("comfyui_rollout.anything")
SECOND = SimpleNamespace(rank=1, count=2)


def test_what_is_logged_inside_is_kept(tmp_path):
    """From INFO on, appended to what a run said before its resume; level and message come back."""
    before = logging.getLogger("comfyui_rollout").level
    for said in ("one", "two"):
        with log_kept(tmp_path, SECOND):
            OURS.info(said)
            OURS.debug("nobody asked")
    OURS.warning("after")
    assert logs_in(tmp_path).keys() == {1}
    lines = [parsed(line) for line in logs_in(tmp_path)[1].read_text().splitlines()]
    assert [message for _, message in lines if not message.startswith("process 1 of 2, on ")] == ["one", "two"]
    assert {level for level, _ in lines} == {logging.INFO}
    assert logging.getLogger("comfyui_rollout").level == before


def test_a_failure_is_kept_with_its_trace(tmp_path):
    """The terminal shows a line of it; whoever asks why, from another machine too, finds the rest."""
    with pytest.raises(ZeroDivisionError), log_kept(tmp_path, SECOND):
        1 / 0  # noqa: B018
    text = logs_in(tmp_path)[1].read_text()
    assert "ERROR ended by ZeroDivisionError: division by zero" in text
    assert "Traceback (most recent call last)" in text


def test_one_process_alone_has_no_such_file(tmp_path):
    """Its words stand in the terminal, or in the editor's log."""
    with log_kept(tmp_path, ONE):
        OURS.info("one")
    assert not list(tmp_path.iterdir())

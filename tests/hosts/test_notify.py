"""A command at the end of a training: it hears what ended, and whatever it does, nothing stops for it."""

import json
import sys
from pathlib import Path

import pytest
from comfyui_rollout.hosts import notify
from comfyui_rollout.hosts.notify import Ended, Notifier

RUN = Ended(Path("/out/rollout/$(touch x) cats_00001"), "failed", 'the "loss" is; `not` finite')
TELL = (
    "import json, os, sys; "
    "json.dump({k: v for k, v in os.environ.items() if k.startswith('ROLLOUT_')}, open(sys.argv[1], 'w'))"
)


def told(command, run=RUN):
    notifier = Notifier(command)
    notifier.tell(run)
    notifier.wait()


def test_it_hears_what_ended(tmp_path):
    """As plain text in its environment: nothing of a run's name or message is read by the shell."""
    told(f'"{sys.executable}" -c "{TELL}" "{tmp_path / "heard"}"')
    assert json.loads((tmp_path / "heard").read_text()) == {
        "ROLLOUT_RUN": RUN.folder.name, "ROLLOUT_STATUS": "failed", "ROLLOUT_FOLDER": str(RUN.folder),
        "ROLLOUT_MESSAGE": RUN.message,
    }  # fmt: skip


@pytest.mark.parametrize("command", ["exit 3", "echo one >&2; echo two >&2; exit 3", "no-such-command-here"])
def test_its_failure_is_one_line(command, caplog):
    """With the reason that it gave last; nothing is raised."""
    told(command)
    (record,) = caplog.records
    assert record.getMessage().startswith("--notify: failed with exit code")
    assert "\n" not in record.getMessage()
    assert ("two" in record.getMessage()) == ("two" in command)


def test_it_holds_nothing_up(monkeypatch, caplog, tmp_path):
    """Telling returns at once, and a command that never ends is ended, with what it has started."""
    monkeypatch.setattr(notify, "LONGEST", 0.5)
    notifier = Notifier(f"(sleep 30; touch '{tmp_path / 'late'}') & wait")
    notifier.tell(RUN)
    assert notifier._threads[0].is_alive()
    notifier.wait(20)
    assert "ended after 0.5 s" in caplog.text
    assert not (tmp_path / "late").exists()


def test_without_a_command_nothing_is_started():
    """The default."""
    notifier = Notifier()
    notifier.tell(RUN)
    assert notifier._threads == []

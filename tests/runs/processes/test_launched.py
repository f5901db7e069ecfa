"""A run that other processes train is told of here: its numbers, its pictures, how it ended."""

import json
import logging

import pytest
from comfyui_rollout.runs.processes import launched
from comfyui_rollout.runs.processes.launched import (
    Launched,
    LaunchFailed,
    configuration,
    last_words,
    leading_to,
    train_launched,
)
from PIL import Image


@pytest.fixture
def run(tmp_path):
    """(prompt file, the run's folder) below an output folder, as the processes leave it at their start."""
    folder = tmp_path / "rollout" / "run_00001"
    (folder / "samples").mkdir(parents=True)
    prompt = tmp_path / "prompt.json"
    (folder / "run.json").write_text(json.dumps({"command": ["run", str(prompt)], "message": "out of luck"}))
    return prompt, folder


def listening(listener, tmp_path):
    host = listener("samples")
    host.output_folder = tmp_path
    return host


def test_only_what_leads_to_the_training_is_run_by_the_processes():
    """What comes behind it is run here, once."""
    prompt = {
        "1": {"class_type": "Data", "inputs": {"size": 8}},
        "2": {"class_type": "Train", "inputs": {"data": ["1", 0], "steps": 5}},
        "3": {"class_type": "Save", "inputs": {"model": ["2", 0]}},
        "4": {"class_type": "Other", "inputs": {}},
    }
    assert set(leading_to(prompt, "2")) == {"1", "2"}


def test_new_lines_and_pictures_are_told_once(listener, tmp_path, run):
    """A line that is still being written waits for its end."""
    prompt, folder = run
    host = listening(listener, tmp_path)
    watched = Launched(host, "9", 20, prompt, None)
    (folder / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    Image.new("L", (4, 4)).save(folder / "samples" / "8_step_000002.png")
    watched.look()
    assert ("metrics", "9", [{"step": 0, "loss": 1.0}]) in host.told
    assert ("progress", "9", 1, 20) in host.told
    assert [told[:4] for told in host.told if told[0] == "show"] == [("show", "8", "samples", 2)]
    (folder / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "loss": 0.5}\n')
    watched.look()
    watched.look()
    assert [told[2] for told in host.told if told[0] == "metrics"][1:] == [[{"step": 1, "loss": 0.5}]]
    assert watched.message() == "out of luck"


def test_what_each_process_says_is_told_with_its_number(listener, tmp_path, run, caplog):
    """In the editor's log, warnings as warnings; what was said before a resume is no news."""
    prompt, folder = run
    (folder / "logs").mkdir()
    first, second = (folder / "logs" / f"process_{rank}.log" for rank in (0, 1))
    first.write_text("2026-11-29T08:00:00+0000 INFO said before\n")
    caplog.set_level(logging.INFO)
    watched = Launched(listening(listener, tmp_path), "9", 20, prompt, folder)
    with first.open("a") as file:
        file.write("2026-11-29T08:00:01+0000 INFO 12 images\n")
    second.write_text("2026-11-29T08:00:01+0000 WARNING left out: a.png\n  for it is damaged\n2026-11")
    watched.look()
    watched.look()
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert told == [
        (logging.INFO, "process 0: 12 images"),
        (logging.WARNING, "process 1: left out: a.png"),
        (logging.INFO, "process 1:   for it is damaged"),
    ]


def test_another_runs_folder_is_not_taken_for_ours(listener, tmp_path, run):
    """Runs of one name may start in the same instant."""
    watched = Launched(listening(listener, tmp_path), "9", 20, tmp_path / "other.json", None)
    watched.look()
    assert watched.folder is None


def test_accelerate_reads_its_configuration(tmp_path):
    """As many processes as asked for, and the workflow's own precision."""
    from accelerate.commands.config.config_args import load_config_from_file

    (tmp_path / "accelerate.json").write_text(json.dumps(configuration(4)))
    config = load_config_from_file(str(tmp_path / "accelerate.json"))
    assert (config.num_processes, config.distributed_type.value, config.mixed_precision) == (4, "MULTI_GPU", "no")


def test_a_launch_that_fails_says_why(listener, tmp_path, monkeypatch):
    """The message of the processes, not that of their launcher."""
    said = "import sys; print('error: node 1 (Data): no such folder', file=sys.stderr); print('Traceback'); sys.exit(2)"
    monkeypatch.setattr(launched, "launcher", lambda *arguments: [launched.sys.executable, "-c", said])
    prompt = {"9": {"class_type": "Train", "inputs": {"steps": 3}}}
    with pytest.raises(LaunchFailed, match=r"^node 1 \(Data\): no such folder$"):
        train_launched(prompt, "9", 2, device="cpu", host=listening(listener, tmp_path), resumed=None)


OF_TORCHRUN = """
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-29_05:04:51
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : -9 (pid: 10499)  (SIGKILL)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 10499
============================================================
"""


def test_a_first_process_that_is_killed_is_named(tmp_path):
    """It writes the run's message, and can no more: then the launcher's own words count, if nobody else says any."""
    log = tmp_path / "log"
    log.write_text(OF_TORCHRUN)
    assert last_words(log) == "process 0 was ended from outside (SIGKILL)"
    log.write_text("error: node 1 (Data): no such folder\n" + OF_TORCHRUN)
    assert last_words(log) == "node 1 (Data): no such folder"

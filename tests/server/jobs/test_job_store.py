"""Queue and history outlive the server, however it ended."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from comfyui_rollout.graph import Result
from comfyui_rollout.server.content.runs import OwnJobs, is_live
from comfyui_rollout.server.jobs.job import Job
from comfyui_rollout.server.jobs.job_queue import MOST_HISTORY, JobQueue
from comfyui_rollout.server.jobs.job_store import FILE, JobStore, StoreTaken, open_store

ROOT = Path(__file__).parents[3]


def job(name, number=0.0, **more):
    return Job(number, name, {"1": {"class_type": "X", "inputs": {"seed": 2**64 - 1, "x": 0.1}}}, ["1"], **more)


def facts(one):
    return one.number, one.id, one.prompt, one.outputs, one.extra_data, one.size, one.status, one.messages


def taken_up(path):
    """The queue that a server started now would have."""
    queue, store = JobQueue(), JobStore(path)
    queue.restore(store)
    return queue, store


def test_everything_is_there_again(tmp_path):
    """Waiting jobs in their order, the history with its outputs, and a running job as an interrupted one."""
    queue, store = taken_up(tmp_path / FILE)
    done, running = job("done", queue.next_number()), job("running", queue.next_number())
    for one in (done, running, job("late", queue.next_number()), job("front", queue.next_number(front=True), size=7)):
        queue.put(one)
    front = queue.take()
    assert front.id == "front"
    front.end(Result("error", {"1": {"text": ["a"]}}, {"exception_message": "boom\n"}, None, {"1": {"node_id": "1"}}))
    front.messages.append(("execution_error", {"exception_message": "boom\n"}))
    queue.finish(front)
    queue.take().end(Result("success", {"1": {"images": [{"filename": "a.png"}]}}))
    queue.finish(done)
    assert queue.take() is running
    queue.put(job("gone", queue.next_number()))
    queue.delete(["gone"])
    store.close()  # as the system does when it kills the process

    again, store = taken_up(tmp_path / FILE)
    assert [one.id for one in again.pending] == ["late"]
    assert again.next_number() > max(one.number for one in again.pending)
    assert [(one.id, one.status) for one in again.history] == [
        ("front", "failed"), ("done", "completed"), ("running", "cancelled"),
    ]  # fmt: skip
    assert facts(again.find("front")) == facts(front)
    assert again.find("front").result.error == front.result.error
    assert again.find("done").result.outputs == done.result.outputs
    assert again.find("running").messages[-1][0] == "execution_interrupted"
    assert again.find("late").prompt["1"]["inputs"] == {"seed": 2**64 - 1, "x": 0.1}
    again.forget(["front"])
    store.close()
    third, store = taken_up(tmp_path / FILE)
    assert [one.id for one in third.history] == ["done", "running"]
    store.close()


def test_the_history_is_bounded_on_disk_too(tmp_path):
    queue, store = taken_up(tmp_path / FILE)
    for number in range(MOST_HISTORY + 5):
        queue.put(job(f"job{number}"))
        one = queue.take()
        one.end(Result("success"))
        queue.finish(one)
    store.close()
    store = JobStore(tmp_path / FILE)
    assert [one.id for one in store.load()] == [f"job{number}" for number in range(5, MOST_HISTORY + 5)]
    store.close()


def test_two_servers_in_one_folder(tmp_path, caplog):
    """The second one takes nothing from the first, says so, and works without a memory."""
    queue, store = taken_up(tmp_path / FILE)
    queue.put(job("first's"))
    with pytest.raises(StoreTaken):
        JobStore(tmp_path / FILE)
    assert open_store(tmp_path / FILE) is None
    assert "another server works in" in caplog.text
    store.close()
    later = open_store(tmp_path / FILE)
    assert [one.status for one in later.load()] == ["pending"]
    later.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_file(tmp_path, caplog, content):
    """It is kept beside, one line says so, and a new one is begun."""
    (tmp_path / FILE).write_bytes(content)
    store = open_store(tmp_path / FILE)
    assert store.load() == []
    store.close()
    assert "the list of jobs is broken" in caplog.text
    (aside,) = tmp_path.glob(f"{FILE}.broken-*")
    assert aside.read_bytes() == content


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    """The server works without a memory, and says so."""
    (tmp_path / "file").write_text("")
    assert open_store(tmp_path / "file" / FILE) is None
    assert "jobs cannot be kept" in caplog.text


def test_a_record_of_another_version(tmp_path, caplog):
    """What cannot be read is left out; the rest is there."""
    queue, store = taken_up(tmp_path / FILE)
    queue.put(job("good"))
    for number, text in enumerate(('{"id": 7}', "[]", "{", "null")):
        store._connection.execute("INSERT INTO jobs VALUES (?, ?, 'pending', ?)", (f"bad{number}", number - 9, text))
    assert [one.id for one in store.load()] == ["good"]
    store.close()
    assert "cannot be read" in caplog.text


def test_a_full_disk_stops_nothing(tmp_path, caplog):
    """The queue goes on in memory."""
    queue, store = taken_up(tmp_path / FILE)
    store.close()
    with caplog.at_level(logging.WARNING):
        queue.put(job("kept in memory"))
    assert queue.take().id == "kept in memory"
    assert "the list of jobs cannot be written" in caplog.text


@contextmanager
def server(tmp_path):
    """(process, function that asks it) for `comfyui-rollout serve` in a process of its own."""
    command = [sys.executable, "-m", "comfyui_rollout", "serve", "--port", "0", "--device", "cpu", "--output", "output"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if os.name == "posix":  # a suite that was begun with nohup hands on its deafness
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with (
        (tmp_path / "words.txt").open("a") as words,
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=words, text=True, env=environment
        ) as process,
    ):
        try:
            address = process.stdout.readline().split()[-1]

            def ask(path, body=None):
                data = None if body is None else json.dumps(body).encode()
                with urllib.request.urlopen(address + path, data, timeout=300) as reply:
                    return json.loads(reply.read() or b"null")

            yield process, ask
        finally:
            process.kill()


def wait(process, condition):
    """However busy the machine is: until it is so, or the server is gone."""
    while not condition():
        assert process.poll() is None, "the server has ended"
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_and_hung_up_servers(tmp_path):
    """Three jobs wait while one trains; after kill -9, and when its terminal is closed, nothing of it is lost.

    Nor after a cluster's notice: the state is kept before anything else, and the log says how long that took.
    """
    pytest.importorskip("comfyui_frontend_package")
    from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from comfyui_rollout.graph import load, object_info, to_prompt
    from comfyui_rollout.graph.workflow.overrides import apply

    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    prompt = to_prompt(load(ROOT / "workflows" / "quickstart_digits.json"), definitions)
    changes = ("OptimizerStep.steps=100000", "NewModel.width=8", "DigitsDataset.batch_size=8")
    prompt = apply(prompt, definitions, changes)
    with server(tmp_path) as (process, ask):
        ids = [ask("prompt", {"prompt": prompt})["prompt_id"] for _ in range(4)]
        wait(process, lambda: ask("rollout/runs")["runs"])
        process.send_signal(signal.SIGKILL)
        process.wait()
    with server(tmp_path) as (process, ask):
        history = ask("history")
        assert list(history) == ids[:1]
        assert history[ids[0]]["status"]["messages"][-1][0] == "execution_interrupted"
        queue = ask("queue")
        assert [entry[1] for entry in queue["queue_running"] + queue["queue_pending"]] == ids[1:]
        first = min(ask("rollout/runs")["runs"], key=lambda run: run["name"])
        assert first["status"] == "stopped"  # at once, not when it has been quiet for a minute
        wait(process, lambda: len(ask("rollout/runs")["runs"]) == 2)
        process.send_signal(signal.SIGHUP)
        assert process.wait(600) == 0
    with server(tmp_path) as (process, ask):
        assert set(ask("history")) == set(ids[:2])
        queue = ask("queue")
        assert [entry[1] for entry in queue["queue_running"] + queue["queue_pending"]] == ids[2:]
        wait(process, lambda: (tmp_path / "output/rollout/quickstart_digits_00003/metrics.jsonl").is_file())
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 0
    assert "was written in" in (tmp_path / "words.txt").read_text()


def test_two_servers_on_one_output_folder(tmp_path, caplog):
    """The second one works, and says in one line what it does without, and the remedy."""
    with caplog.at_level(logging.WARNING):
        first = open_store(tmp_path / FILE)
        assert open_store(tmp_path / FILE) is None
    first.close()
    (line,) = [record.message for record in caplog.records]
    assert line.startswith(f"another server works in {tmp_path}: ")
    assert line.endswith("give it a folder of its own with --output")


def test_a_clock_that_is_set_back(tmp_path, monkeypatch):
    """Jobs that ended later than it is now were not left behind; a run that wrote then is no live one."""
    queue, store = taken_up(tmp_path / FILE)
    for name in ("done", "died"):
        queue.put(job(name, queue.next_number()))
    queue.take().end(Result("success"))
    queue.finish(queue.running)
    queue.take()
    store.close()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"status": "running"}')
    assert is_live(tmp_path / "run", OwnJobs())
    today = time.time()
    monkeypatch.setattr("time.time", lambda: today - 86400)
    _, store = taken_up(tmp_path / FILE)
    assert [one.id for one in store.left_behind] == ["died"]
    store.close()
    assert not is_live(tmp_path / "run", OwnJobs())

"""The folders of runs: listed, read and deleted."""

import json
import os
import time

import pytest
from comfyui_rollout.server.content.runs import OwnJobs, describe_run, is_live
from PIL import Image


@pytest.fixture
def runs(folders):
    """Three runs: a finished one, one that died without a word, and one that is going."""
    for number, (name, status) in enumerate((("run_1", "finished"), ("run_2", "running"), ("run_3", "running"))):
        folder = folders.runs / name
        (folder / "samples").mkdir(parents=True)
        facts = {"status": status, "started": f"2026-01-0{number + 1}T00:00:00+0000", "steps": 3}
        (folder / "run.json").write_text(json.dumps(facts))
        rows = "".join(json.dumps({"step": step, "loss": 1 / (step + 1)}) + "\n" for step in range(3))
        (folder / "metrics.jsonl").write_text(rows + '{"step": 3, "lo')
        Image.new("RGB", (4, 4)).save(folder / "samples" / "8_step_000003.png")
    (folders.runs / "run_1" / "workflow.json").write_text('{"id": "w"}')
    (folders.runs / "no run").mkdir()
    for path in (folders.runs / "run_2").iterdir():
        os.utime(path, (time.time() - 3600,) * 2)
    return folders.runs


def test_runs(serve, runs):
    """The list, newest first, with what became of each; curves, files and the workflow of one."""

    async def check(client, studio):
        async def get(path, status=200):
            reply = await client.get(f"/api/rollout/runs{path}")
            assert reply.status == status, path
            return await reply.json()

        listed = (await get(""))["runs"]
        assert [(run["name"], run["status"]) for run in listed] == [
            ("run_3", "running"), ("run_2", "stopped"), ("run_1", "finished")
        ]  # fmt: skip
        assert [run["has_workflow"] for run in listed] == [False, False, True]
        assert (await get("/run_1"))["steps"] == 3
        assert [row["step"] for row in (await get("/run_1/metrics"))["rows"]] == [0, 1, 2]
        assert await get("/run_1/metrics?after=0&limit=1") == {"rows": [{"step": 1, "loss": 0.5}], "more": True}
        assert await get("/run_1/metrics?after=2") == {"rows": [], "more": False}
        files = {file["path"]: file for file in (await get("/run_1/files"))["files"]}
        assert set(files) == {"run.json", "metrics.jsonl", "workflow.json", "samples/8_step_000003.png"}
        picture = await client.get("/view", params=files["samples/8_step_000003.png"]["view"])
        assert picture.content_type == "image/png"
        assert await get("/run_1/workflow") == {"id": "w"}
        await get("/run_2/workflow", 404)
        await get("/no%20run", 404)
        await get("/run_1/metrics?after=x", 400)

    serve(check)


def test_runs_that_can_be_resumed(serve, runs):
    """Those with a state and a workflow, whatever became of them; not the one that is going."""
    for name in ("run_1", "run_2", "run_3"):
        (runs / name / "workflow.json").write_text("{}")
        (runs / name / "state").mkdir()
        if name != "run_1":
            (runs / name / "state" / "state.json").write_text("{}")
    for path in (runs / "run_2").iterdir():
        os.utime(path, (time.time() - 3600,) * 2)

    async def check(client, studio):
        listed = (await (await client.get("/rollout/runs")).json())["runs"]
        assert {run["name"]: run["can_resume"] for run in listed} == {"run_1": False, "run_2": True, "run_3": False}

    serve(check)


def test_deleting_a_run(serve, runs):
    """A run is deleted with all it left, but not while it is going, and nothing else is."""

    async def check(client, studio):
        async def delete(name):
            return (await client.delete(f"/rollout/runs/{name}")).status

        assert await delete("run_3") == 409
        assert await delete("run_1") == 204
        assert await delete("run_1") == 404
        assert await delete("run_2") == 204
        assert await delete("no run") == 404
        assert await delete("run_3%2Fsamples") == 403

    serve(check)
    assert sorted(path.name for path in runs.iterdir()) == ["no run", "run_3"]
    assert (runs / "run_3" / "samples" / "8_step_000003.png").is_file()


def test_a_run_whose_server_died(tmp_path):
    """It is not running, however short ago that was; one that somebody else began or goes on with is."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now - 5))
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "started": stamp}))
    died = OwnJobs(died=[(now - 6, now + 1)])
    assert is_live(tmp_path, OwnJobs())
    assert not is_live(tmp_path, died)
    assert describe_run(tmp_path, died)["status"] == "stopped"
    assert is_live(tmp_path, OwnJobs(died=[(now - 3, now + 1)]))  # begun before that job
    assert is_live(tmp_path, OwnJobs(died=[(now - 6, now - 1)]))  # written to since
    assert is_live(tmp_path, OwnJobs(live_since=now - 1, died=died.died))

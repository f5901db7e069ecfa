"""Templates, pictures and the folders of runs."""

import io
import json
import os
import struct
import time

import pytest
from PIL import Image


@pytest.fixture
def workflows(folders):
    folders.workflows.mkdir()
    text = "## First steps\n\nPress **Run** and watch.\n\nMore.\n\n**What it costs.** 2 `GB`."
    note = {"type": "MarkdownNote", "widgets_values": [text]}
    order = {"rollout": {"order": 1}}
    (folders.workflows / "another_one.json").write_text('{"version": 0.4, "nodes": []}')
    (folders.workflows / "quickstart_digits.json").write_text(
        json.dumps({"version": 0.4, "nodes": [note], "extra": order})
    )
    (folders.workflows / "broken.json").write_text("{")
    Image.new("RGB", (8, 8)).save(folders.workflows / "another_one.jpg")
    return folders.workflows


def test_templates(serve, workflows):
    """Ours are the templates, in their own order; each has a title, a description and a picture."""

    async def check(client, studio):
        (category,) = await (await client.get("/templates/index.json")).json()
        assert category["moduleName"] == "default"
        shown = {template["name"]: template for template in category["templates"]}
        assert list(shown) == ["quickstart_digits", "another_one", "broken"]
        assert shown["quickstart_digits"]["title"] == "First steps"
        assert shown["quickstart_digits"]["description"] == "Press Run and watch. 2 GB."
        assert shown["another_one"]["title"] == "Another one"
        for name, template in shown.items():
            assert isinstance(template["description"], str)
            picture = await client.get(f"/templates/{name}-1.{template['mediaSubtype']}")
            assert (picture.status, picture.content_type) == (200, "image/jpeg")
            Image.open(io.BytesIO(await picture.read())).verify()
            for place in ("/templates", "/api/workflow_templates/comfyui-rollout"):
                assert (await client.get(f"{place}/{name}.json")).content_type == "application/json"
        assert (await client.get("/templates/none.json")).status == 404
        assert (await client.get("/templates/none-1.jpg")).status == 404

    serve(check)


def test_blueprints(serve, folders):
    """Graphs folded into one node, as ComfyUI lists them: not those that need its nodes, and no broken ones."""
    folders.blueprints.mkdir()
    (folders.blueprints / "Train in One Node.json").write_text('{"version": 0.4, "extra": {}}')
    (folders.blueprints / "guest.json").write_text('{"version": 0.4, "extra": {"rollout": {"needs": "comfyui"}}}')
    (folders.blueprints / "broken.json").write_text("{")

    async def check(client, studio):
        listed = await (await client.get("/api/global_subgraphs")).json()
        ((name, told),) = listed.items()
        assert told == {
            "source": "custom_node",
            "name": "Train in One Node",
            "info": {"node_pack": "custom_nodes.comfyui-rollout"},
        }
        whole = await (await client.get(f"/api/global_subgraphs/{name}")).json()
        assert json.loads(whole["data"])["version"] == 0.4
        for other in ("none", "..%2fguest"):
            assert await (await client.get(f"/global_subgraphs/{other}")).json() is None

    serve(check)


def test_views(serve, folders):
    """A picture as it is, smaller, and one channel of it; names with their folder in brackets; odd wishes."""
    (folders.output / "rollout" / "run").mkdir(parents=True)
    Image.new("RGBA", (32, 16), (255, 0, 0, 128)).save(folders.output / "rollout" / "run" / "a.png")
    (folders.output / "x.jsonl").write_text("{}\n")

    async def check(client, studio):
        async def picture(**query):
            query = {"filename": "a.png", "subfolder": "rollout/run", "type": "output"} | query
            reply = await client.get("/api/view", params=query)
            assert reply.status == 200
            return reply.content_type, Image.open(io.BytesIO(await reply.read()))

        assert (await picture())[1].mode == "RGBA"
        assert (await picture(preview="webp;90"))[0] == "image/webp"
        assert (await picture(preview="jpeg;x"))[0] == "image/jpeg"
        assert (await picture(preview="odd;90"))[0] == "image/png"
        assert (await picture(channel="rgb"))[1].mode == "RGB"
        assert (await picture(channel="a"))[1].getpixel((0, 0)) == (0, 0, 0, 128)
        assert (await picture(channel="rgba"))[1].mode == "RGBA"
        assert (await picture(filename="a.png [output]", type="input"))[1].size == (32, 16)
        assert (await picture(subfolder="rollout/run/"))[1].size == (32, 16)
        text = await client.get("/view?filename=x.jsonl&preview=webp;90")
        assert (text.content_type, await text.text()) == ("text/plain", "{}\n")

    serve(check)


def test_metadata_of_weights(serve, folders):
    """The workflow in a weights file can be read without reading the weights."""
    folders.output.mkdir()
    header = json.dumps({"__metadata__": {"workflow": "{}"}}).encode()
    (folders.output / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folders.output / "bad.safetensors").write_bytes(b"x")

    async def check(client, studio):
        reply = await client.get("/view_metadata/output?filename=m.safetensors")
        assert await reply.json() == {"workflow": "{}"}
        assert (await client.get("/view_metadata/output?filename=bad.safetensors")).status == 400
        assert (await client.get("/view_metadata/output?filename=none.safetensors")).status == 404
        assert (await client.get("/view_metadata/loras?filename=m.safetensors")).status == 404

    serve(check)


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

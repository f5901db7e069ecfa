"""The protocol against a recorded session with a real ComfyUI: same messages, same fields and types, same order."""

import json

import pytest
import recorded_session
from recorded_session import REFUSED, spoil


def assert_same(ours, theirs, shape):
    """Theirs in order within ours. What else we send are progress states, of which ComfyUI drops more than we do."""
    rest = iter(ours)
    for kind, data in behind_progress(theirs):
        for our_kind, our_data in rest:
            if our_kind == kind and (kind != "progress_state" or set(our_data["nodes"]) == set(data["nodes"])):
                assert data is None or shape(our_data) == shape(data), kind
                break
            assert our_kind == "progress_state", f"{our_kind} instead of {kind}"
        else:
            pytest.fail(f"missing: {kind}")
    assert {kind for kind, _ in rest} <= {"progress_state"}


def behind_progress(messages):
    """ComfyUI sends the first picture of a job just before its first progress, we just behind it."""
    kinds = [kind for kind, _ in messages]
    if "BIN 4" in kinds and kinds.index("BIN 4") < kinds.index("progress"):
        picture = messages.pop(kinds.index("BIN 4"))
        messages.insert(kinds.index("progress"), picture)
    return messages


def test_welcome(serve, browse, recorded, shape):
    """First the status with the client's id, then, asked by the client's flags, the server's."""

    async def check(client, studio):
        browser = await browse(client)
        (status, ours), (flags, known) = browser.welcome
        theirs, (their_flags, their_known) = recorded("welcome")
        assert (status, shape(ours)) == (theirs[0], shape(theirs[1]))
        assert ours["sid"] == "probe1"
        assert flags == their_flags
        assert known["supports_preview_metadata"] is their_known["supports_preview_metadata"]
        assert known["max_upload_size"] == their_known["max_upload_size"]

    serve(check)


def test_first_and_cached_run(serve, browse, queue, prompt, recorded, shape):
    """The first run reports progress, a preview and results; the second is answered from the cache."""

    async def check(client, studio):
        browser = await browse(client)
        for number, section in enumerate(("run 1", "run 2")):
            reply = await queue(client, prompt)
            ours = await browser.until_done()
            assert_same(ours, recorded(section), shape)
            assert reply == {"prompt_id": reply["prompt_id"], "number": number, "node_errors": {}}
            assert all(data["prompt_id"] == reply["prompt_id"] for _, data in ours if "prompt_id" in data)
            remaining = [data["status"]["exec_info"]["queue_remaining"] for kind, data in ours if kind == "status"]
            assert remaining == [1, 1, 0]
        assert [data["magic"] for kind, data in ours if kind == "BIN 4"] == []

    serve(check)


def test_preview_frame(serve, browse, queue, prompt):
    """A preview is a JPEG with the node that it belongs to; a client that knows no such frames gets the plain form."""

    async def check(client, studio):
        browser, old = await browse(client), await browse(client, "old", announces=False)
        await old.announce()
        await old.until("feature_flags")
        reply = await queue(client, prompt)
        pictures = [data for kind, data in await browser.until_done() if kind == "BIN 4"]
        plain = [data for kind, data in await old.until_done() if kind.startswith("BIN")]
        where = {"node_id": "1", "display_node_id": "1", "real_node_id": "1", "parent_node_id": None}
        about = {"prompt_id": reply["prompt_id"], "image_type": "image/jpeg", "magic": b"\xff\xd8"}
        assert pictures == [where | about]
        assert plain == [{"magic": b"\xff\xd8"}]

    serve(check)


def test_failing_run(serve, browse, queue, prompt, recorded, shape):
    """A node that raises ends the run with an execution_error; the next run works."""

    async def check(client, studio):
        browser = await browse(client)
        await queue(client, prompt)
        await browser.until_done()
        prompt["3"] = {"class_type": "DummyFail", "inputs": {"value": ["1", 0], "msg": "boom"}}
        await queue(client, {"3": prompt.pop("3"), **prompt})
        ours = await browser.until_done()
        assert_same(ours, recorded("fail"), shape)
        (error,) = [data for kind, data in ours if kind == "execution_error"]
        fields = [
            *("prompt_id", "node_id", "node_type", "executed", "exception_message", "exception_type", "traceback"),
            *("current_inputs", "current_outputs", "timestamp"),
        ]
        assert list(error) == fields
        assert error["exception_message"] == "boom\n"
        await queue(client, prompt)
        assert "execution_success" in dict(await browser.until_done())

    serve(check)


def test_interrupted_run(serve, browse, queue, prompt, recorded, shape, transcript):
    """An interrupt with an empty body stops the run within a step; the job is cancelled."""

    async def check(client, studio):
        browser = await browse(client)
        prompt["1"]["inputs"] |= {"n": 60, "seed": 99}
        await queue(client, prompt)
        ours = await browser.until("progress", value=2)
        shown = await (await client.get("/queue")).json()
        theirs = json.loads(transcript["QUEUE"][0].removeprefix("QUEUE "))
        assert shape(shown) == shape(theirs)
        reply = await client.post("/api/interrupt", data=b"", headers={"Content-Type": "application/json"})
        assert (reply.status, await reply.text()) == (200, "")
        assert_same(ours + await browser.until_done(), recorded("INT"), shape)
        jobs = await (await client.get("/api/jobs?status=cancelled&limit=3")).json()
        assert shape(jobs) == shape(json.loads(transcript["CANC"][0].removeprefix("CANC ")))

    serve(check)


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "danglinglink"])  # of which we say more
def test_each_400(serve, prompt, transcript, name):
    """A refused prompt gets ComfyUI's reply."""
    spoil(prompt, name)

    async def check(client, studio):
        reply = await client.post("/api/prompt", json={"prompt": prompt})
        assert reply.status == 400
        assert await reply.json() == recorded_session.reply(transcript[f"bad {name}"])

    serve(check)


@pytest.mark.parametrize("body", [{"prompt_id": "no uuid", "prompt": {}}, {}])
def test_bad_requests(serve, transcript, body):
    """An id that is no UUID, and no prompt at all."""
    import ast

    line = transcript["400"]["prompt" not in body]

    async def check(client, studio):
        reply = await client.post("/prompt", json=body)
        text = line.removeprefix("400 ")
        theirs = json.loads(text) if text.startswith('{"') else ast.literal_eval(text)
        assert (reply.status, await reply.json()) == (400, theirs)

    serve(check)


def test_partial_success_history_and_jobs(serve, browse, queue, prompt, transcript, shape):
    """Good outputs run beside bad ones; then history, list and detail of the job are as recorded."""

    async def check(client, studio):
        browser = await browse(client)
        await queue(client, prompt)
        await browser.until_done()
        prompt["3"] = {"class_type": "DummyFail", "inputs": {"value": ["1", 0], "msg": "bad"}}
        reply = await queue(client, prompt)
        assert reply["node_errors"] == recorded_session.reply(transcript["bad custom"])["node_errors"]
        await browser.until_done()
        job_id = reply["prompt_id"]
        history = await (await client.get(f"/history/{job_id}")).json()
        theirs = json.loads(transcript["HIST"][0].removeprefix("HIST "))
        assert shape(history[job_id]) == shape(next(iter(theirs.values())))
        job = await (await client.get(f"/api/jobs/{job_id}")).json()
        detail = json.loads(transcript["JOB"][0].removeprefix("JOB "))
        assert shape(job) == shape(detail)
        jobs = await (await client.get("/api/jobs?status=completed,failed&limit=1")).json()
        (item,) = jobs["jobs"]
        assert shape(item) == shape({key: detail[key] for key in detail if key in item})
        assert jobs["pagination"] == {"offset": 0, "limit": 1, "total": 2, "has_more": True}
        assert await (await client.get("/api/history/unknown")).json() == {}
        assert (await client.get("/api/jobs/unknown")).status == 404

    serve(check)

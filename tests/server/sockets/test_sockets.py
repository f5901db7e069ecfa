"""Browsers come, go, lag and die; the training goes on."""

import asyncio
import socket as sockets

from comfyui_rollout.server.sockets.messages import Message
from comfyui_rollout.server.sockets.outbox import BEHIND


def test_late_joiner(serve, host, browse, queue, prompt):
    """Who comes late hears which job runs, its state, the curve so far and the newest pictures."""
    host.rows = 5

    async def check(client, studio):
        first = await browse(client)
        host.gate.clear()
        reply = await queue(client, prompt)
        await first.until("dummy.event")
        late = await browse(client, "late")
        await late.announce()  # not the first message: it changes nothing
        told = [*late.welcome, *await late.until("BIN 4")]
        kinds = [kind for kind, _ in told]
        expected = ["execution_start", "execution_cached", "progress_state", "executing", "rollout.metrics"]
        assert kinds == ["status", "feature_flags", *expected, "BIN 4"]
        about = dict(told)
        assert about["status"]["status"]["exec_info"]["queue_remaining"] == 1
        assert about["progress_state"]["nodes"]["1"]["state"] == "running"
        assert about["rollout.metrics"] == {"node": "1", "rows": [{"step": row, "loss": 1.0} for row in range(5)]}
        assert all(data["prompt_id"] == reply["prompt_id"] for _, data in told if "prompt_id" in data)
        assert (await late.until("BIN 4"))[-1][1]["node_id"] == "1"  # once more: its graph may have loaded only now
        host.gate.set()
        for browser in (first, late):
            assert "execution_success" in dict(await browser.until_done())
        idle = await browse(client, "idle")
        assert [kind for kind, _ in idle.welcome] == ["status", "feature_flags"]

    serve(check)


def test_every_browser_watches(serve, browse, queue, prompt):
    """Every browser hears all of a job, whoever queued it; browsers are clients that announce their features."""

    async def check(client, studio):
        browsers = [await browse(client, f"browser{number}") for number in range(5)]
        await queue(client, prompt, client_id="browser0")
        heard = [[kind for kind, _ in await browser.until_done()] for browser in browsers]
        assert all(kinds == heard[0] for kinds in heard)
        assert {"progress_state", "BIN 4", "executed", "execution_success"} <= set(heard[0])

    serve(check)


def test_two_programs_at_once(serve, browse, queue, prompt):
    """Programs that use the API hear of their own jobs alone, in order, and are sent no pictures but results."""

    async def check(client, studio):
        names = ("program1", "program2")
        programs = [await browse(client, name, announces=False) for name in names]
        browser = await browse(client, "browser")
        jobs = []
        for seed, name in enumerate(names):
            prompt["1"]["inputs"]["seed"] = seed
            jobs.append((await queue(client, prompt, client_id=name))["prompt_id"])
        nobodys = {**prompt, "1": {**prompt["1"], "inputs": {**prompt["1"]["inputs"], "seed": 9}}}
        reply = await client.post("/api/prompt", json={"prompt": nobodys})
        jobs.append((await reply.json())["prompt_id"])
        watched = [message for _ in jobs for message in await browser.until_done()]
        for program, job in zip(programs, jobs, strict=False):
            heard = await program.until_done()
            about = [data["prompt_id"] for _, data in heard if "prompt_id" in data]
            assert set(about) == {job}
            kinds = [kind for kind, _ in heard if kind not in ("status", "progress_state", "dummy.event")]
            assert kinds[:2] == ["execution_start", "execution_cached"]
            assert kinds[-2:] == ["execution_success", "executing"]
            assert {"progress", "executed"} <= set(kinds)
            assert not [kind for kind in kinds if kind.startswith("BIN")]
            assert [kind for kind, _ in heard].count("execution_start") == 1
        assert {data["prompt_id"] for kind, data in watched if kind == "execution_start"} == set(jobs)
        assert {data["prompt_id"] for kind, data in watched if kind == "BIN 4"} == set(jobs)

    serve(check)


def test_a_program_that_comes_late(serve, host, browse, queue, prompt):
    """It is told of its own job when it connects, and nothing of somebody else's."""

    async def check(client, studio):
        host.gate.clear()
        browser = await browse(client, "browser")
        job = (await queue(client, prompt, client_id="late"))["prompt_id"]
        await browser.until("dummy.event")
        late = await browse(client, "late", announces=False)
        kind, about = (await late.until("executing"))[0]
        assert (kind, about["prompt_id"]) == ("execution_start", job)
        other = await browse(client, "other", announces=False)
        host.gate.set()
        await late.until_done()
        assert [kind for kind, _ in other.welcome] == ["status"]
        kind, status = await other.receive()  # the queue is empty again: that is for everybody
        assert (kind, status["status"]["exec_info"]["queue_remaining"]) == ("status", 0)

    serve(check)


def test_reconnect(serve, host, browse, queue, prompt):
    """The same client again replaces its old socket, and goes on where the job is."""

    async def check(client, studio):
        old = await browse(client)
        host.gate.clear()
        await queue(client, prompt)
        await old.until("dummy.event")
        new = await browse(client)
        assert [data["node"] for kind, data in new.welcome if kind == "executing"] == ["1"]
        assert len(studio.audience) == 1
        assert (await old.socket.receive()).type.name in ("CLOSED", "CLOSE", "ERROR")
        host.gate.set()
        await new.until_done()

    serve(check)


def test_a_closed_browser_stops_nothing(serve, host, browse, queue, prompt):
    """A run whose browser is gone ends as if it were there."""

    async def check(client, studio):
        browser = await browse(client)
        host.gate.clear()
        reply = await queue(client, prompt)
        await browser.until("dummy.event")
        await browser.socket.close()
        host.gate.set()
        job = studio.jobs.find(reply["prompt_id"])
        await asyncio.to_thread(job.done.wait, 20)
        assert job.status == "completed"

    serve(check)


def test_a_socket_that_is_not_read(serve, host, browse, queue, prompt, monkeypatch):
    """A dead socket delays nobody, what waits for it is bounded, and it is dropped when it does not drain."""
    monkeypatch.setattr("comfyui_rollout.server.sockets.client.PATIENCE", 1.0)

    async def check(client, studio):
        watcher = await browse(client)
        server = client.make_url("/")
        dead = sockets.create_connection((server.host, server.port))
        dead.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        ask = (
            f"GET /ws?clientId=dead HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        dead.sendall(ask.encode())
        while not studio.audience.knows("dead"):
            await asyncio.sleep(0.01)
        (slow,) = [one for one in studio.audience if one.sid == "dead"]
        payload = "x" * 100_000
        for number in range(300):
            studio.audience.send(Message("progress_state", {"n": number, "payload": payload}, ("progress_state",)))
            await asyncio.sleep(0)
        assert len(slow._outbox) <= BEHIND + 2
        await queue(client, prompt)
        await watcher.until_done()
        for _ in range(300):
            if not studio.audience.knows("dead"):
                break
            await asyncio.sleep(0.02)
        assert not studio.audience.knows("dead")
        dead.close()

    serve(check)

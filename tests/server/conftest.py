"""A server around tiny nodes, a browser's ends of its protocol, and the recorded session with a real ComfyUI."""

import asyncio
import json
import struct
import threading
from contextlib import contextmanager

import pytest
import recorded_session
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from comfyui_rollout.graph import Interrupted
from comfyui_rollout.server import Access, Folders, Studio, application
from PIL import Image
from recorded_session import DummyHost, messages, pack, queued


class Trainer(DummyHost):
    """Makes DummyValue work like a training: it takes time, can be stopped, reports metrics, and waits at a gate."""

    picture = Image.new("RGB", (64, 64), "red")

    def __init__(self):
        super().__init__()
        self.stop, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.pause = 0.12  # seconds between two steps
        self.rows = 0  # of metrics

    def on_progress(self, i):
        if self.stop.wait(self.pause):
            raise Interrupted

    def on_end(self, uid, x):
        for row in range(self.rows):
            self.executor.send("rollout.metrics", {"node": uid, "rows": [{"step": row, "loss": 1.0}]})
        super().on_end(uid, x)
        self.gate.wait(20)


class Browser:
    """One WebSocket, seen from the browser."""

    def __init__(self, socket):
        self.socket = socket

    async def receive(self):
        """(type, data) of the next message; ("BIN 4", metadata) or ("BIN 1", {}) of a picture."""
        message = await asyncio.wait_for(self.socket.receive(), 20)
        if message.type is WSMsgType.TEXT:
            found = json.loads(message.data)
            return found["type"], found["data"]
        assert message.type is WSMsgType.BINARY, message
        (kind,) = struct.unpack_from(">I", message.data)
        if kind == 1:
            return "BIN 1", {"magic": message.data[8:10]}
        (size,) = struct.unpack_from(">I", message.data, 4)
        return f"BIN {kind}", {**json.loads(message.data[8 : 8 + size]), "magic": message.data[8 + size : 10 + size]}

    async def until(self, kind, **fields):
        """All messages up to the first one of this type and these fields."""
        found = []
        while True:
            found.append(await self.receive())
            if found[-1][0] == kind and fields.items() <= found[-1][1].items():
                return found

    async def until_done(self):
        return await self.until("executing", node=None)

    async def announce(self, **features):
        await self.socket.send_json({"type": "feature_flags", "data": features})


@pytest.fixture
def host():
    return Trainer()


@pytest.fixture
def folders(tmp_path):
    made = Folders(**{name: tmp_path / name for name in Folders.__dataclass_fields__})
    made.frontend.mkdir()
    (made.frontend / "index.html").write_text("<title>ComfyUI</title>")
    return made


@pytest.fixture
def make_studio(host, folders):
    """make_studio(): the queue, the thread and the audience around the tiny nodes."""

    @contextmanager
    def hosted(executor, stop):
        host.executor, host.stop = executor, stop
        yield

    return lambda: Studio(pack(host), {"DummyValue": "A value"}, folders, hosted)


@pytest.fixture
def serve(make_studio):
    """serve(test): run ``await test(client, studio)`` against a server on a free port."""

    def serve(test, **rules):
        async def main():
            studio = make_studio()
            async with TestClient(TestServer(application(studio, Access(**rules)))) as client:
                return await test(client, studio)

        return asyncio.run(main())

    return serve


@pytest.fixture
def browse():
    """browse(client, sid, announces=True): a browser that has been welcomed."""

    async def browse(client, sid="probe1", announces=True):
        browser = Browser(await client.ws_connect(f"/ws?clientId={sid}"))
        browser.welcome = [await browser.receive()]
        if announces:
            await browser.announce(supports_preview_metadata=True)
            browser.welcome += await browser.until("feature_flags")
        return browser

    return browse


@pytest.fixture
def prompt():
    """What the recorded session queued: a value and a sink."""
    return queued()


@pytest.fixture
def queue():
    """queue(client, prompt, **body): queue it; the parsed reply, which must be 200."""

    async def queue(client, prompt, **body):
        reply = await client.post("/api/prompt", json={"prompt": prompt, "client_id": "probe1"} | body)
        assert reply.status == 200, await reply.text()
        return await reply.json()

    return queue


@pytest.fixture
def transcript():
    return recorded_session.transcript()


@pytest.fixture
def recorded(transcript):
    """recorded(section): its messages as a browser of ours gives them; data is None where the recorder cut a line."""
    return lambda section: messages(transcript[section])


def shape(value):
    """A value with every leaf replaced by its JSON type; numbers of both kinds are one, ids of nodes stay."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@pytest.fixture(name="shape")
def shape_fixture():
    return shape

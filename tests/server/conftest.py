"""A server around tiny nodes, a browser's ends of its protocol, and the recorded session with a real ComfyUI."""

import asyncio
import json
import re
import struct
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from comfyui_rollout.graph import Interrupted
from comfyui_rollout.server import Access, Folders, Studio, application
from PIL import Image

TRANSCRIPT = Path(__file__).resolve().parents[1] / "data" / "comfyui" / "transcript.txt"
VALUE = {"x": 2.5, "n": 3, "seed": 1, "mode": "fast", "flag": True, "text": "t"}


def pack(host):
    """The classes that the session was recorded with; a running DummyValue reports through the host's executor."""

    class DummyValue:
        RETURN_TYPES = ("DUMMY_VALUE", "FLOAT")
        FUNCTION = "run"

        @classmethod
        def INPUT_TYPES(cls):
            return {
                "required": {
                    "x": ("FLOAT", {"default": 1.5, "min": 0.0, "max": 10.0}),
                    "n": ("INT", {"default": 3, "min": 1, "max": 100}),
                    "seed": ("INT", {"default": 0, "min": 0, "max": 2**63}),
                    "mode": (["fast", "slow"], {"default": "fast"}),
                    "flag": ("BOOLEAN", {"default": True}),
                    "text": ("STRING", {"default": "hi"}),
                },
                "optional": {"opt": ("DUMMY_VALUE", {"lazy": True})},
                "hidden": {"uid": "UNIQUE_ID"},
            }

        def run(self, x, n, seed, mode, flag, text, uid, opt=None):
            for i in range(1, n):
                host.executor.progress(uid, i, n, Image.new("RGB", (64, 64), "red") if i == 1 else None)
                if host.stop.wait(host.pause):
                    raise Interrupted
            for row in range(host.rows):
                host.executor.send("rollout.metrics", {"node": uid, "rows": [{"step": row, "loss": 1.0}]})
            host.executor.send("dummy.event", {"node": uid, "x": x})
            host.gate.wait(20)
            return ({"x": x, "seed": seed}, x)

    class DummySink:
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        @classmethod
        def INPUT_TYPES(cls):
            return {
                "required": {"value": ("DUMMY_VALUE", {})},
                "optional": {"number": ("FLOAT", {"forceInput": True})},
            }

        def run(self, value, number=None):
            return {"ui": {"text": [str(value), str(number)]}}

    class DummyFail:
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"value": ("DUMMY_VALUE",), "msg": ("STRING", {"default": "boom"})}}

        @classmethod
        def VALIDATE_INPUTS(cls, msg):
            return "msg is bad" if msg == "bad" else True

        def run(self, value, msg):
            raise ValueError(msg)

    return {kind.__name__: kind for kind in (DummyValue, DummySink, DummyFail)}


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
    """Where nodes report to, and how they behave: seconds between two steps, rows of metrics, a gate to wait at."""
    gate = threading.Event()
    gate.set()
    return SimpleNamespace(executor=None, stop=threading.Event(), pause=0.12, rows=0, gate=gate)


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
    return {
        "1": {"class_type": "DummyValue", "inputs": dict(VALUE), "_meta": {"title": "DV"}},
        "2": {"class_type": "DummySink", "inputs": {"value": ["1", 0], "number": ["1", 1]}},
    }


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
    """The recorded session: {section: lines}; the requests between the runs are sections of their first word."""
    sections, name = {}, "welcome"
    for line in TRANSCRIPT.read_text().splitlines():
        word = re.match(r"=== (run 1|run 2|fail|bad \w+)|(HIST|JOBS|JOB|QUEUE|INT|CANC)\b|(4\d\d) ", line)
        if word:
            name = next(filter(None, word.groups()))
        sections.setdefault(name, []).append(line)
    return sections


@pytest.fixture
def recorded(transcript):
    """recorded(section): its messages as a browser of ours gives them; data is None where the recorder cut a line."""

    def recorded(section):
        found = []
        for line in transcript[section]:
            if line.startswith("BIN 4"):
                ids = json.loads(re.search(r"b'(\{.*?\})'", line)[1])
                found.append(("BIN 4", {**ids, "magic": b""}))
            elif line.startswith("TEXT "):
                try:
                    message = json.loads(line[5:])
                except json.JSONDecodeError:
                    message = {"type": re.search(r'"type": "(\w+)"', line)[1], "data": None}
                found.append((message["type"], message["data"]))
        return found

    return recorded


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

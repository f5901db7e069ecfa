"""A real ComfyUI process that has our pack, spoken to as its frontend does."""

import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import aiohttp
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # sums depend on the number of threads
SKIPPED = "set COMFYUI_PATH to a ComfyUI checkout, and COMFYUI_PYTHON to the python that runs it"
SECONDS = 180
"""After which a prompt that is not over yet never will be."""


class Comfy:
    """A running ComfyUI."""

    def __init__(self, address, base):
        self.address, self.base, self.output, self.log = address, base, base / "output", base / "log.txt"
        self.process = None

    def get(self, path):
        with urlopen(f"http://{self.address}{path}", timeout=60) as reply:
            return reply.read()

    def request(self, method, path, **headers):
        """(status, text) of any request."""
        try:
            with urlopen(Request(f"http://{self.address}{path}", method=method, headers=headers), timeout=60) as reply:
                return reply.status, reply.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def interrupt(self):
        urlopen(Request(f"http://{self.address}/interrupt", method="POST"), timeout=60).close()

    def run(self, prompt, on_message=lambda kind, data: None, workflow=None):
        """Queue the prompt and listen until it is over: [(type, data), ...], with pictures as type "preview"."""
        return asyncio.run(asyncio.wait_for(self._run(prompt, on_message, workflow), SECONDS))

    async def _run(self, prompt, on_message, workflow):
        url, messages = f"http://{self.address}", []
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId=test") as socket:
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
            request = {"prompt": prompt, "client_id": "test", "extra_data": extra}
            async with session.post(f"{url}/prompt", json=request) as reply:
                assert reply.status == 200, await reply.text()
                prompt_id = (await reply.json())["prompt_id"]
            async for message in socket:
                kind, data = read(message.data)
                messages.append((kind, data))
                on_message(kind, data)
                if kind == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                    break
        return messages


def read(message):
    """(type, data) of JSON, or of a picture with metadata: event 4, the length of the JSON, the JSON, the picture."""
    if isinstance(message, str):
        content = json.loads(message)
        return content["type"], content["data"]
    assert int.from_bytes(message[:4], "big") == 4
    end = 8 + int.from_bytes(message[4:8], "big")
    return "preview", {**json.loads(message[8:end]), "picture": Image.open(io.BytesIO(message[end:]))}


@contextlib.contextmanager
def started(base, packs=(), name="comfyui-rollout", options=()):
    """A ComfyUI in the folder ``base`` with our pack, and the files ``packs`` beside it."""
    for folder in ("custom_nodes", "input", "output", "temp", "user", "models"):
        (base / folder).mkdir()
    (base / "custom_nodes" / name).symlink_to(ROOT, target_is_directory=True)
    for pack in packs:
        (base / "custom_nodes" / pack.name).symlink_to(pack)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [PYTHON, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"]
    command += ["--base-directory", str(base), "--database-url", f"sqlite:///{base}/user/comfyui.db", *options]
    comfy = Comfy(f"127.0.0.1:{port}", base)
    with comfy.log.open("w") as log:
        server = subprocess.Popen(command, cwd=os.environ["COMFYUI_PATH"], env=ONE_THREAD, stdout=log, stderr=log)
    try:
        wait_until_up(comfy, server)
        yield comfy
    finally:
        server.terminate()
        server.wait(30)


def wait_until_up(comfy, server, seconds=120):
    for _ in range(seconds):
        assert server.poll() is None, comfy.log.read_text()[-3000:]
        try:
            comfy.get("/system_stats")
            return
        except URLError:
            time.sleep(1)
    raise TimeoutError(comfy.log.read_text()[-3000:])


def all_of(messages, kind):
    return [data for name, data in messages if name == kind]


def read_json(path):
    return json.loads(path.read_text())


def metrics(run_folder):
    """The numbers of each step that do not depend on the clock."""
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row.keys() - {"seconds", "steps_per_second", "machine"}} for row in rows]

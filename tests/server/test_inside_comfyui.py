"""Inside ComfyUI the same extension finds runs and data sets: our routes are added to ComfyUI's server."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from comfyui_rollout.server.inside_comfyui import add_routes

ROOT = Path(__file__).resolve().parents[2]


def test_runs_and_data_sets_are_served(tmp_path):
    """As by our own server, errors too; nothing outside ComfyUI's folders is reached."""
    folder = tmp_path / "output" / "rollout" / "a_00001"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "finished", "steps": 3}))
    host = SimpleNamespace(app=web.Application(), routes=web.RouteTableDef())
    add_routes(host, ROOT, **{name: str(tmp_path / name) for name in ("output", "input", "temp", "user")})
    host.app.add_routes(host.routes)

    async def check():
        async with TestClient(TestServer(host.app)) as client:
            (run,) = (await (await client.get("/rollout/runs")).json())["runs"]
            assert (run["name"], run["status"]) == ("a_00001", "finished")
            assert (await client.get("/rollout/runs/none")).status == 404
            assert (await client.get("/rollout/runs/..%2f..")).status == 403
            made = await (await client.post("/rollout/datasets", json={"name": "cats"})).json()
            assert Path(made["path"]) == (tmp_path / "input" / "datasets" / "cats").resolve()
            assert (await client.delete("/rollout/runs/a_00001")).status == 204
            assert not folder.exists()

    asyncio.run(check())


def test_importing_the_pack_in_comfyui_adds_them(tmp_path):
    """Where ComfyUI's server module is there, importing is enough; elsewhere nothing of it is loaded."""
    script = """
import sys, types
from aiohttp import web
host = types.SimpleNamespace(app=web.Application(), routes=web.RouteTableDef())
sys.modules["server"] = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=host))
names = ("get_output_directory", "get_input_directory", "get_temp_directory", "get_user_directory")
sys.modules["folder_paths"] = types.SimpleNamespace(**{name: (lambda: sys.argv[2]) for name in names})
import importlib.util
spec = importlib.util.spec_from_file_location(
    "pack_x_y", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
module = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(sorted(route.path for route in host.routes if "datasets" in route.path)[0])
"""
    command = [sys.executable, "-c", script, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "/rollout/datasets", done.stderr

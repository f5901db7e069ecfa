"""What the frontend asks for when it starts, in the order in which it was seen to."""

import pytest
from comfyui_rollout.server import CannotServe, Folders, frontend_folder

BOOT = [
    "/", "/user.css", "/api/userdata/user.css", "/api/features", "/api/users", "/api/system_stats", "/api/settings",
    "/api/userdata?dir=workflows&recurse=true&split=false&full_info=true",
    "/api/userdata?dir=subgraphs&recurse=true&split=false&full_info=true", "/api/i18n", "/api/extensions",
    "/api/userdata/comfy.templates.json", "/api/userdata/workflows%2F.index.json", "/api/object_info",
    "/api/object_info/DummyValue", "/api/global_subgraphs", "/api/node_replacements",
    "/api/jobs?status=in_progress,pending&limit=200&offset=0", "/api/jobs?status=completed,failed,cancelled&limit=64",
    "/internal/folder_paths", "/api/experiment/models", "/api/experiment/models/checkpoints", "/api/embeddings",
    "/api/workflow_templates", "/templates/index.json", "/templates/index.de.json", "/templates/index_logo.json",
    "/internal/logs", "/internal/logs/raw", "/api/prompt", "/api/queue", "/api/history", "/api/v2/userdata?path=",
    "/rollout/runs", "/internal/files/output", "/internal/files/input",
]  # fmt: skip


def test_every_url_of_the_start(serve):
    """Nothing is missing: not one 404 in the browser's console."""

    async def check(client, studio):
        for path in BOOT:
            reply = await client.get(path, headers={"Comfy-User": ""})
            assert reply.status == 200, path
            if path not in ("/", "/user.css", "/api/userdata/user.css"):
                await reply.json()
        for path in ("/users", "/settings", "/extensions", "/object_info", "/jobs", "/ws"):
            assert (await client.get(path)).status == (await client.get(f"/api{path}")).status

    serve(check)


def test_fields_that_the_frontend_needs(serve):
    """The four calls without which it does not start, and the statistics."""

    async def check(client, studio):
        async def get(path):
            return await (await client.get(path)).json()

        assert await get("/api/users") == {"storage": "server", "migrated": True}
        nodes = await get("/api/object_info")
        assert nodes["DummyValue"]["display_name"] == "A value"
        assert set(nodes) == {"DummyValue", "DummySink", "DummyFail"}
        system = await get("/api/system_stats")
        assert isinstance(system["system"]["argv"], list)
        assert {"name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"} <= set(
            system["devices"][0]
        )
        assert (await get("/api/jobs"))["pagination"] == {"offset": 0, "limit": 1000, "total": 0, "has_more": False}

    serve(check)


def test_the_real_frontend(serve, folders):
    """The installed frontend's page and every asset that it names are there, as types that a browser accepts."""
    import re

    try:
        real = frontend_folder()
    except CannotServe as error:
        pytest.skip(str(error))
    folders.__dict__["frontend"] = real
    assert isinstance(folders, Folders)

    async def check(client, studio):
        reply = await client.get("/")
        assert reply.headers["Cache-Control"] == "no-store, must-revalidate"
        page = await reply.text()
        named = set(re.findall(r'(?:src|href)="\.?/?((?!http)[^"]+)"', page))
        assert len(named) >= 6
        for name in named:
            reply = await client.get(f"/{name}")
            assert reply.status == 200, name
            await reply.read()  # an older aiohttp hands out a connection again that stands still, unread
            expected = {".js": "text/javascript", ".css": "text/css"}
            assert reply.content_type == expected.get(name[name.rfind(".") :], reply.content_type), name
        for name in ("scripts/app.js", "scripts/api.js"):  # what extensions import
            reply = await client.get(f"/{name}")
            await reply.read()
            assert reply.content_type == "text/javascript"

    serve(check)

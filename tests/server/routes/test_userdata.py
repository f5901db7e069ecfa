"""Workflows saved from the editor."""

import json

from yarl import URL


def test_round_trip(serve, folders):
    """Saved, listed, read, renamed, deleted: plain files in a folder, whose names may have folders in them."""
    workflow = {"nodes": [], "version": 0.4, "name": "ü"}
    text = json.dumps(workflow)

    async def check(client, studio):
        async def call(method, path, **options):
            url = URL(str(client.make_url("/")).rstrip("/") + path, encoded=True)
            return await client.session.request(method, url, **options)

        place = "/api/userdata/workflows%2Fsub%2Fmy%20flow.json"
        saved = await call("POST", f"{place}?overwrite=false&full_info=true", data=text)
        facts = await saved.json()
        assert saved.status == 200
        assert facts["path"] == "workflows/sub/my flow.json"
        assert facts["size"] == len(text.encode())
        assert {type(facts[name]) for name in ("modified", "created")} == {int}
        assert (await call("POST", f"{place}?overwrite=false", data=text)).status == 409
        again = await call("POST", f"{place}?overwrite=true", data=text + " ")
        assert await again.json() == "workflows/sub/my flow.json"
        file = folders.user / "workflows" / "sub" / "my flow.json"
        assert json.loads(file.read_text()) == workflow
        assert file.stat().st_mode & 0o044, "others can read it, as the folder is to be shared"
        listing = await call("GET", "/api/userdata?dir=workflows&recurse=true&split=false&full_info=true")
        assert [entry["path"] for entry in await listing.json()] == ["sub/my flow.json"]
        names = await call("GET", "/api/userdata?dir=workflows&recurse=true&split=true")
        assert await names.json() == [["sub/my flow.json", "sub", "my flow.json"]]
        assert await (await call("GET", "/api/userdata?dir=workflows")).json() == []
        tree = await (await call("GET", "/api/v2/userdata?path=workflows")).json()
        assert tree == [{"name": "sub", "path": "workflows/sub", "type": "directory"}]
        read = await call("GET", place)
        assert json.loads(await read.text()) == workflow
        assert read.headers["Content-Disposition"].startswith("attachment")
        moved = await call("POST", f"{place}/move/workflows%2Fnew.json?overwrite=false")
        assert (moved.status, await moved.json()) == (200, "workflows/new.json")
        assert (await call("GET", place)).status == 404
        await call("POST", place, data="{}")
        assert (await call("POST", f"{place}/move/workflows%2Fnew.json?overwrite=false")).status == 409
        assert (await call("POST", f"{place}/move/workflows%2Fnew.json?overwrite=true")).status == 200
        assert (await call("DELETE", "/api/userdata/workflows%2Fnew.json")).status == 204
        assert (await call("DELETE", "/api/userdata/workflows%2Fnew.json")).status == 404
        assert (await call("DELETE", "/api/userdata/workflows%2Fsub")).status == 404
        left = [path for path in folders.user.rglob("*") if path.is_file()]
        assert left == []

    serve(check)


def test_a_style_of_ones_own(serve, folders):
    """user.css is the one file that is served to be obeyed."""
    folders.user.mkdir()
    (folders.user / "user.css").write_text("body {}")

    async def check(client, studio):
        for path in ("/user.css", "/api/userdata/user.css"):
            reply = await client.get(path)
            assert (reply.content_type, await reply.text()) == ("text/css", "body {}")
            assert "Content-Disposition" not in reply.headers

    serve(check)

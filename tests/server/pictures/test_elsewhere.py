"""Pictures outside of the studio's folder: shown and captioned where a workflow names them, and nothing else is."""

import io
import json
import urllib.parse
from pathlib import Path

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, graph
from comfyui_rollout.server.pictures.elsewhere import Elsewhere, folders_named, key_of, place_of
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """A folder elsewhere with two pictures, and beside it what nobody may see."""
    place = tmp_path / "home" / "my photos"
    (place / "sub").mkdir(parents=True)
    for name, colour in (("a.png", "red"), ("sub/b.png", "blue")):
        Image.new("RGB", (300, 300), colour).save(place / name)
    (place / "a.txt").write_text("a wall")
    (place / "secret.txt").write_text("secret")
    Image.new("RGB", (9, 9)).save(place.parent / "private.png")
    return place


def workflow_on(folder):
    return {"1": {"class_type": "RolloutImageFolderDataset", "inputs": {"folder": str(folder)}}}


def save(folders, name, workflow):
    folders.saved_workflows.mkdir(parents=True, exist_ok=True)
    (folders.saved_workflows / name).write_text(json.dumps(workflow))


async def elsewhere(client):
    sets = (await (await client.get("/rollout/datasets")).json())["datasets"]
    return [one for one in sets if one.get("elsewhere")]


def test_a_folder_that_a_saved_workflow_names_is_seen_and_captioned(serve, folders, photos):
    """Its pictures, small copies and captions; it is there as long as the workflow names it."""

    async def check(client, studio):
        assert await elsewhere(client) == []
        save(folders, "mine.json", workflow_on(photos))
        (found,) = await elsewhere(client)
        assert (found["title"], found["path"]) == ("my photos", str(photos))
        at = f"/rollout/datasets/{found['name']}"
        shown = (await (await client.get(at)).json())["entries"]
        assert [(entry["picture"], entry["caption"]) for entry in shown] == [("a.png", "a wall"), ("sub/b.png", "")]
        first = await (await client.get(f"{at}?first=1")).json()
        assert ([entry["picture"] for entry in first["entries"]], first["more"]) == (["a.png"], True)
        small = await client.get(f"{at}/files/sub/b.png?side=96")
        assert Image.open(io.BytesIO(await small.read())).size == (96, 96)
        change = {"picture": "sub/b.png", "caption": "blue", "was": ""}
        assert (await client.put(f"{at}/captions", json={"changes": [change]})).status == 200
        assert (photos / "sub" / "b.txt").read_text() == "blue"
        (folders.saved_workflows / "mine.json").unlink()
        assert (await client.get(at)).status == 404

    serve(check)


def test_nothing_beside_its_pictures_is_reached(serve, folders, photos):
    """Texts, paths that lead out, links, other keys, sizes; and no file is brought in there."""
    (photos / "link.png").symlink_to(photos.parent / "private.png")
    before = sorted(photos.rglob("*"))

    async def check(client, studio):
        save(folders, "mine.json", workflow_on(photos))
        at = f"/rollout/datasets/{key_of(photos)}"
        for file, status in (
            ("secret.txt", 404), ("a.txt", 404), ("none.png", 404), ("sub", 404), ("link.png", 403),
            ("..%2fprivate.png", 403), ("sub%2f..%2f..%2fprivate.png", 403), ("a.png%00", 403),
            ("%2e%2e%2fprivate.png", 403), ("%252e%252e%252fprivate.png", 403), ("%5c..%5cprivate.png", 403),
            (urllib.parse.quote(str(photos / "a.png"), safe=""), 403),
        ):  # fmt: skip
            assert (await client.get(f"{at}/files/{file}")).status == status, file
            change = {"picture": urllib.parse.unquote(file), "caption": "x", "was": ""}
            assert (await client.put(f"{at}/captions", json={"changes": [change]})).status >= 400, file
        for first in ("0", "-1", "501", "x", "1e9", "9" * 50):
            assert (await client.get(f"{at}?first={first}")).status == 400, first
        data = (photos / "a.png").read_bytes()
        assert (await client.put(f"{at}/files/new.png", data=data)).status >= 400
        assert (await client.put(f"{at}/archive", data=b"PK")).status >= 400
        for name in (key_of(photos.parent), "folder:", "folder:..", f"folder:{photos}", str(photos)):
            reply = await client.get(f"/rollout/datasets/{urllib.parse.quote(name, safe='')}")
            assert reply.status in (403, 404), name
        assert sorted(photos.rglob("*")) == before

    serve(check)


def test_a_caption_that_is_a_link_out_is_neither_shown_nor_written(serve, folders, photos):
    """Whoever can write a folder could else read any text file of the server's; a link within it is a caption."""
    secret = photos.parent / "secret.txt"
    secret.write_text("token")
    (photos / "a.txt").unlink(missing_ok=True)
    (photos / "a.txt").symlink_to(secret)
    (photos / "sub" / "b.txt").symlink_to(photos / "shared.txt")
    (photos / "shared.txt").write_text("a wall")

    async def check(client, studio):
        save(folders, "mine.json", workflow_on(photos))
        at = f"/rollout/datasets/{key_of(photos)}"
        for query in ("", "?first=9"):
            reply = await (await client.get(at + query)).json()
            assert "token" not in json.dumps(reply)
            found = {entry["picture"]: entry for entry in reply["entries"]}
            assert (found["a.png"]["caption"], found["a.png"]["flags"][-1]) == ("", "linked")
            assert found["sub/b.png"]["caption"] == "a wall"
        for was in ("", found["a.png"]["version"], "0" * 16):
            change = {"picture": "a.png", "caption": "x", "was": was}
            reply = await client.put(f"{at}/captions", json={"changes": [change]})
            assert reply.status == 400
            assert "token" not in await reply.text()
        (photos / "a.txt").unlink()
        (photos / "a.txt").symlink_to(photos / "a.txt")  # a circle
        assert (await client.get(at)).status == 200

    serve(check)
    assert secret.read_text() == "token"


@pytest.mark.parametrize("named", ["/", "", "  ", "none", "a\0b", "~nobody-of-this-name/x", "x" * 5000, 3, None, ["/"]])
def test_what_is_no_folder_opens_nothing(serve, folders, named):
    """A whole disk neither."""

    async def check(client, studio):
        save(folders, "odd.json", {"1": {"class_type": "X", "inputs": {"folder": named}}})
        assert await elsewhere(client) == []

    serve(check)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"{", b'{"nodes": 3}', b'{"nodes": [{}], "links": 1}', b"[" * 9999]
)
def test_what_is_no_workflow_is_passed_over(serve, folders, photos, content):
    """And the others are read."""

    async def check(client, studio):
        save(folders, "good.json", workflow_on(photos))
        (folders.saved_workflows / "bad.json").write_bytes(content)
        assert len(await elsewhere(client)) == 1

    serve(check)


def test_workflows_of_the_editor_queued_prompts_and_the_command_line(tmp_path, photos):
    """All three name folders, and each folder is there once."""
    workflow = json.loads((Path(__file__).parents[3] / "workflows" / "lora_sd15.json").read_text())
    definitions = graph.object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    (node,) = (node for node in workflow["nodes"] if node["type"] == "RolloutImageFolderDataset")
    node.pop("widgets_values_named", None)  # as the editor saves it
    node["widgets_values"][0] = str(photos)
    (tmp_path / "saved" / "deep").mkdir(parents=True)
    (tmp_path / "saved" / "deep" / "a.json").write_text(json.dumps(workflow))
    other = tmp_path / "other"
    other.mkdir()
    named = Elsewhere(tmp_path / "saved", lambda: definitions, lambda: [workflow_on(other)], [other, photos / "sub"])
    assert list(named().values()) == [other, photos / "sub", photos]
    assert place_of(tmp_path / "none") is None
    assert list(folders_named({"1": 3, "2": {"inputs": []}, "3": {"inputs": {"folder": " "}}})) == []

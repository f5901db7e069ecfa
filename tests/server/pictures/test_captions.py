"""Captions: edited without loss, whoever writes at once, in usual encodings."""

import asyncio
import json

import pytest
from comfyui_rollout.server.pictures import captions
from uploads import entries, picture, put


async def write(client, *changes):
    body = {"changes": [dict(zip(("picture", "caption", "was"), change, strict=True)) for change in changes]}
    reply = await client.put("/rollout/datasets/a/captions", json=body)
    return (await reply.json())["captions"] if reply.status == 200 else reply.status


def test_captions_are_edited_and_two_editors_lose_nothing(serve, folders):
    """The second of two edits of the same version is told what is there; an empty caption has no file."""

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        await put(client, "a", "1.png", picture())
        (first,) = await write(client, ("1.png", "a cat", ""))
        assert (first["caption"], first["flags"]) == ("a cat", [])
        (second,) = await write(client, ("1.png", "a dog", ""))
        assert (second["caption"], second["conflict"], second["version"]) == ("a cat", True, first["version"])
        (same,) = await write(client, ("1.png", "a cat", ""))  # both wrote the same: nothing to settle
        assert "conflict" not in same
        (third,) = await write(client, ("1.png", " बिल्ली \r\n", first["version"]))
        assert (folders.datasets / "a" / "1.txt").read_text(encoding="utf-8") == "बिल्ली"
        (last,) = await write(client, ("1.png", "", third["version"]))
        assert (last["version"], last["flags"]) == ("", ["no caption"])
        assert not (folders.datasets / "a" / "1.txt").exists()

    serve(check)


def test_many_editors_at_once(serve, folders):
    """Of twenty edits of one version exactly one is written, and the file is whole."""

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        await put(client, "a", "1.png", picture())
        told = await asyncio.gather(
            *(write(client, ("1.png", f"text {number} " + "x" * 5000, "")) for number in range(20))
        )
        written = [now for (now,) in told if "conflict" not in now]
        assert len(written) == 1
        assert (await entries(client, "a"))["1.png"]["caption"] == written[0]["caption"]
        assert [path.name for path in sorted((folders.datasets / "a").iterdir())] == ["1.png", "1.txt"]

    serve(check)


def test_odd_edits(serve, folders):
    """Edits of nothing, elsewhere, of the wrong shape, and of captions that are none."""

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        await put(client, "a", "1.png", picture())
        assert await write(client, ("2.png", "x", "")) == 404
        assert await write(client, ("1.txt", "x", "")) == 404
        assert await write(client, ("../../1.png", "x", "")) == 403
        assert await write(client, ("1.png", "x" * 30_000, "")) == 400
        assert await write(client, ("1.png", "a\0b", "")) == 400
        for body in ({}, {"changes": 1}, {"changes": [1]}, {"changes": [{"picture": "1.png"}]}, [1]):
            assert (await client.put("/rollout/datasets/a/captions", data=json.dumps(body))).status == 400
        assert [path.name for path in (folders.datasets / "a").iterdir()] == ["1.png"]

    serve(check)


def test_a_caption_whose_encoding_cannot_be_told_is_not_written_over(tmp_path):
    """Russian in Windows' Cyrillic alphabet is shown as well as can be, and left alone: an edit would spoil it."""
    path = tmp_path / "a.png"
    path.with_suffix(".txt").write_bytes("красный кот".encode("cp1251"))
    shown = captions.read_caption(path, tmp_path)
    with pytest.raises(captions.BadCaption, match=r"^a\.txt is neither UTF-8 nor surely .* save it as UTF-8"):
        captions.write_caption(path, tmp_path, shown.text + " noir", shown.version)
    assert path.with_suffix(".txt").read_bytes() == "красный кот".encode("cp1251")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_captions_are_read_in_usual_encodings(tmp_path, encoding):
    """And written back in UTF-8, beside the picture, under the ending that was there."""
    path = tmp_path / "1.png"
    path.with_suffix(".caption").write_bytes("café".encode(encoding))
    seen = captions.read_caption(path, tmp_path)
    assert seen.text == "café"
    captions.write_caption(path, tmp_path, "café noir", seen.version)
    assert path.with_suffix(".caption").read_text(encoding="utf-8") == "café noir"
    assert not path.with_suffix(".txt").exists()

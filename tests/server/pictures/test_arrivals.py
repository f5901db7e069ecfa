"""Files that arrive: whole, typed, bounded, and nowhere else than they should."""

import asyncio
import contextlib
import io
import stat
import zipfile

import pytest
from comfyui_rollout.server.content import images
from comfyui_rollout.server.pictures import arrivals
from uploads import entries, picture, put


def archive(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return data.getvalue()


def test_files_that_do_not_belong_are_refused(serve, folders, monkeypatch):
    """Programs, pages, false endings, too long captions, too large files, paths that lead out: nothing is left."""
    monkeypatch.setattr("comfyui_rollout.server.routes.datasets.LARGEST_FILE", 50_000)

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        for file, data, status in (
            ("x.html", b"<script>", 415), ("x.py", b"1", 415), ("x.png", b"no picture", 415), ("x.png", b"", 415),
            ("x.jpg", picture(), 415), ("x.txt", b"a" * 45_000 * 2, 413), (".png", picture(), 415),
            ("..%2fx.png", picture(), 403), ("a%2f..%2f..%2fx.png", picture(), 403), ("x.png%00.png", picture(), 403),
            ("con.png", picture(), 403), ("%5c..%5cx.png", picture(), 403), ("y" * 300 + ".png", picture(), 403),
        ):  # fmt: skip
            assert (await put(client, "a", file, data))[0] == status, file
        assert (await client.put("/rollout/datasets/none/files/x.png", data=picture())).status == 404
        assert [path.name for path in folders.input.rglob("*")] == ["datasets", "a"]

    serve(check)


def test_a_broken_upload_leaves_nothing(serve, folders):
    """A browser that goes away in the middle."""

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})

        async def half():
            yield picture()[:100]
            raise ConnectionError

        with contextlib.suppress(Exception):  # whatever the client makes of it
            await client.put("/rollout/datasets/a/files/x.png", data=half())
        await asyncio.sleep(0.2)
        assert list((folders.datasets / "a").iterdir()) == []

    serve(check)


def test_an_archive_is_unpacked(serve, folders):
    """Without its one outer folder; hidden files are no loss, others are named with the reason."""
    files = {"cats/1.png": picture(), "cats/1.txt": "one", "cats/more/2.png": picture("blue"), "cats/x.exe": "MZ",
             "cats/fake.png": "x", "__MACOSX/cats/._1.png": "x", "cats/.DS_Store": "x",
             "cats/../../out.png": picture()}  # fmt: skip

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        told = await (await client.put("/rollout/datasets/a/archive", data=archive(files))).json()
        assert (told["added"], told["same"]) == (3, 0)
        assert sorted(line.split()[0].strip(":") for line in told["left_out"]) == ["../../out.png", "fake.png", "x.exe"]
        assert set(await entries(client, "a")) == {"1.png", "more/2.png"}
        assert (await (await client.put("/rollout/datasets/a/archive", data=archive(files))).json())["same"] == 3
        assert not (folders.input / "out.png").exists()

    serve(check)


def test_what_is_refused_says_why_and_what_to_do(serve, folders, monkeypatch):
    """Of the name that it came with, once; not of the file in which it waited."""
    monkeypatch.setattr(images, "MOST_PIXELS", 1_000_000)
    refused = {
        "a.png": (b"", "a.png is not an image"),
        "b.png": (b"<html>", "b.png is not an image"),
        "c.png": (picture(size=(1001, 1000)), "c.png has more than 1 megapixels: make it smaller"),
        "IMG_1.HEIC": (b"", "IMG_1.HEIC: convert it to JPEG or PNG first"),
        "two%0Alines.png": (
            picture(),
            "'two\\nlines.png' holds a line break or another character that cannot be printed",
        ),
    }

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        for name, (data, words) in refused.items():
            told = await (await client.put(f"/rollout/datasets/a/files/{name}", data=data)).json()
            assert told == {"error": words}
        told = await (await client.put("/rollout/datasets/a/archive", data=archive({"x.exe": "", "a.png": ""}))).json()
        wrong = ["x.exe: only pictures and captions (.txt) belong into a data set", "a.png is not an image"]
        assert told["left_out"] == wrong
        assert list((folders.datasets / "a").iterdir()) == []

    serve(check)


def test_hostile_archives(serve, folders, monkeypatch):
    """No archive, a password, a link, more than is allowed, and one whose content is longer than it says."""
    monkeypatch.setattr(arrivals, "MOST_FILES", 5)
    many = archive({f"{number}.png": picture() for number in range(6)})
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as opened:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(entry, "/etc/passwd")
    damaged = archive({"1.png": picture()}).replace(picture()[40:60], b"")

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        for data in (b"", b"PK", b"no archive", many):
            assert (await client.put("/rollout/datasets/a/archive", data=data)).status == 415
        told = await (await client.put("/rollout/datasets/a/archive", data=linked.getvalue())).json()
        assert "link" in told["left_out"][0]
        assert (await client.put("/rollout/datasets/a/archive", data=damaged)).status in (200, 415)
        assert [path for path in (folders.datasets / "a").iterdir() if path.name != "1.png"] == []

    serve(check)
    with pytest.raises(arrivals.NotAnImage):
        arrivals.copy_at_most(io.BytesIO(b"x" * 100), io.BytesIO(), 99)


def test_a_full_disk_is_said_before_anything_is_written(serve, folders, monkeypatch):
    """507, and the data set is as it was."""
    monkeypatch.setattr(arrivals, "SPARE", 1 << 60)

    async def check(client, studio):
        await client.post("/rollout/datasets", json={"name": "a"})
        for where in ("files/x.png", "archive"):
            reply = await client.put(f"/rollout/datasets/a/{where}", data=picture())
            assert (reply.status, "disk" in (await reply.json())["error"]) == (507, True)
        assert list((folders.datasets / "a").iterdir()) == []

    serve(check)

"""Data sets: pictures come in whole and typed, captions are edited without loss, whoever does what at once."""

import asyncio
import contextlib
import io
import json
import stat
import zipfile
from pathlib import Path

import pytest
from comfyui_rollout.data.reading.folder import PICTURES, WITH_PLUGIN, survey
from comfyui_rollout.server.content import images
from comfyui_rollout.server.pictures import arrivals, captions, datasets
from PIL import Image


def picture(colour="red", kind="PNG", size=(300, 300)):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, kind)
    return data.getvalue()


def archive(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return data.getvalue()


@pytest.fixture
def sets(folders):
    return datasets.Datasets(folders.datasets)


async def put(client, name, file, data):
    reply = await client.put(f"/rollout/datasets/{name}/files/{file}", data=data)
    return reply.status, (await reply.json()).get("result", "")


async def entries(client, name):
    return {
        entry["picture"]: entry for entry in (await (await client.get(f"/rollout/datasets/{name}")).json())["entries"]
    }


def test_a_data_set_is_made_filled_and_listed(serve, folders):
    """A taken name gets a number; what is there is the same, another file of the name is refused and stays."""

    async def check(client, studio):
        names = [(await (await client.post("/rollout/datasets", json={"name": "my cat"})).json())["name"] for _ in "ab"]
        assert names == ["my cat", "my cat 2"]
        assert await put(client, "my cat", "10.png", picture()) == (200, "added")
        assert await put(client, "my cat", "2.jpg", picture(kind="JPEG", size=(100, 700))) == (200, "added")
        assert await put(client, "my cat", "sub/2.png", picture()) == (200, "added")
        assert await put(client, "my cat", "10.txt", "a red cat\n") == (200, "added")
        assert await put(client, "my cat", "10.png", picture()) == (200, "same")
        assert (await put(client, "my cat", "10.png", picture("blue")))[0] == 409
        found = await entries(client, "my cat")
        assert list(found) == ["2.jpg", "10.png", "sub/2.png"]
        assert found["10.png"].pop("version")
        facts = {"bytes": len(picture()), "width": 300, "height": 300, "caption": "a red cat", "flags": []}
        assert found["10.png"] == {"picture": "10.png", **facts}
        assert found["2.jpg"]["flags"] == ["small", "oblong", "no caption"]
        assert found["sub/2.png"]["flags"] == ["no caption", "duplicate"]
        listed = (await (await client.get("/rollout/datasets")).json())["datasets"]
        assert [(item["name"], item["pictures"], item["first"]) for item in listed] == [
            ("my cat", 3, ["2.jpg"]), ("my cat 2", 0, []),
        ]  # fmt: skip
        assert not list(folders.datasets.rglob("*.part"))

    serve(check)


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "", "x" * 200, "con", "a\0b", "a ", "a.", "..%2f..", "a:b"])
def test_names_that_lead_elsewhere_make_nothing(serve, folders, name):
    """Not as the name of a data set, and not as that of a file in one."""

    async def check(client, studio):
        before = sorted(folders.input.rglob("*")) if folders.input.exists() else []
        assert (await client.post("/rollout/datasets", json={"name": name})).status in (400, 403)
        assert (sorted(folders.input.rglob("*")) if folders.input.exists() else []) == before

    serve(check)


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


def test_all_that_is_trained_is_shown():
    """A picture that the trainer takes and the Data tab hides would be trained without its caption being seen."""
    assert set(datasets.PICTURES) == PICTURES
    assert set(datasets.WITH_PLUGIN) == WITH_PLUGIN


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


def test_ten_thousand_pictures_are_measured_once(sets, folders, monkeypatch):
    """A second look reads no picture again; a changed one is read."""
    folder = folders.datasets / "a"
    folder.mkdir(parents=True)
    for number in range(50):
        (folder / f"{number}.png").write_bytes(picture() + b"\0" * number)
    sets.entries("a")
    read = []
    monkeypatch.setattr(datasets, "upright_size", lambda path: read.append(path.name) or (1, 1))
    sets.entries("a")
    assert read == []
    (folder / "7.png").write_bytes(picture("blue") + b"\0" * 999)
    sets.entries("a")
    assert read == ["7.png"]


def test_masks_and_what_is_left_out_are_told(serve, folders):
    """As the trainer reads the folder: a mask is no picture, and every file that is not trained has its reason."""
    place = folders.datasets / "cats"
    place.mkdir(parents=True)
    for name in ("a.png", "a-masklabel.png", "b.png", "c-condlabel.png", "lost-masklabel.png"):
        Image.new("RGB", (300, 300), "red" if name == "b.png" else "blue").save(place / name)
    (place / "raw.cr2").write_bytes(b"x")
    said = survey(place)
    assert said["masks"] == {"a.png": "a-masklabel.png"}
    assert said["beside"] == ["a-masklabel.png", "c-condlabel.png", "lost-masklabel.png"]
    assert len(said["left_out"]) == 3
    sets = datasets.Datasets(folders.datasets, survey)
    entries, left_out = sets.shown("cats")
    assert [(entry["picture"], entry.get("mask")) for entry in entries] == [
        ("a.png", "a-masklabel.png"),
        ("b.png", None),
    ]
    assert left_out == said["left_out"]


def test_a_duplicate_says_of_what(folders):
    """The first by name stays, the others point to it."""
    place = folders.datasets / "cats"
    place.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (300, 300)).save(place / name)
    first, second = datasets.Datasets(folders.datasets).entries("cats")
    assert "same_as" not in first
    assert (second["flags"][-1], second["same_as"]) == ("duplicate", "a.png")


def test_a_picture_that_may_not_be_read_hides_no_other(sets, folders, monkeypatch):
    """It is shown as one that cannot be read, also beside a file of the same size."""
    place = folders.datasets / "a"
    place.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (place / name).write_bytes(picture())
    stat = Path.stat

    def refused(path, **options):
        if path.stem == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    flags = {entry["picture"]: entry["flags"] for entry in sets.entries("a")}
    assert flags == {"a.png": ["no caption"], "b.png": ["unreadable", "no caption"]}

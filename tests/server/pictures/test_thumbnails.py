"""Small copies: made once, upright, of pictures in the folders only."""

import errno
import io
import os

import pytest
from comfyui_rollout.server.pictures import thumbnails
from PIL import Image


@pytest.fixture
def picture(folders):
    folders.input.mkdir()
    path = folders.input / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (400, 200), "red").save(path, exif=exif)
    return path


def test_a_small_copy_is_made_once(serve, folders, picture):
    """At the asked size, upright; a second request reads the same file, a changed picture makes another."""

    async def check(client, studio):
        async def small(**query):
            return await client.get("/rollout/thumbnail", params={"filename": "a.jpg", "type": "input", **query})

        reply = await small(side=96)
        assert (reply.status, reply.content_type) == (200, "image/webp")
        assert Image.open(io.BytesIO(await reply.read())).size == (48, 96)
        (made,) = folders.thumbnails.glob("*")
        before = made.stat().st_mtime_ns
        await small(side=96)
        assert [path.stat().st_mtime_ns for path in folders.thumbnails.glob("*")] == [before]
        Image.new("RGB", (50, 50)).save(picture)
        assert Image.open(io.BytesIO(await (await small(side=96)).read())).size == (50, 50)

    serve(check)


def test_what_is_no_picture_or_elsewhere_is_refused(serve, folders, picture):
    """Other sizes, texts, huge claims and paths that lead out: an error, and nothing is written."""
    (folders.input / "b.png").write_text("no picture")
    (folders.input / "c.svg").write_text("<svg/>")

    async def check(client, studio):
        for query, status in (
            ({"filename": "a.jpg", "side": "97"}, 400),
            ({"filename": "a.jpg"}, 400),
            ({"filename": "b.png", "side": "96"}, 415),
            ({"filename": "c.svg", "side": "96"}, 415),
            ({"filename": "none.png", "side": "96"}, 404),
            ({"filename": "../a.jpg", "side": "96"}, 403),
            ({"filename": "a.jpg", "subfolder": "../input", "side": "96"}, 403),
        ):
            reply = await client.get("/rollout/thumbnail", params={"type": "input", **query})
            assert reply.status == status, query
        assert not folders.thumbnails.exists() or not list(folders.thumbnails.iterdir())

    serve(check)


def test_the_oldest_copies_go(tmp_path):
    """The store is bounded."""
    for number in range(12):
        (tmp_path / f"{number:02}.webp").write_text("")
    thumbnails.prune(tmp_path, most=20)
    assert len(list(tmp_path.iterdir())) == 12
    thumbnails.prune(tmp_path, most=5)
    assert not list(tmp_path.iterdir())


def test_a_copy_that_cannot_be_kept_is_not_the_pictures_fault(folders, picture, monkeypatch):
    """On a full disk nothing half written stays, and the picture is not called broken."""

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        thumbnails.thumbnail(picture, 96, folders.thumbnails)
    assert list(folders.thumbnails.iterdir()) == []


@pytest.mark.parametrize("suffix", [".avif", ".tga", ".ppm", ".jp2", ".qoi"])
def test_what_is_trained_has_a_small_copy(folders, tmp_path, suffix):
    """Of formats that no browser shows, too."""
    if suffix not in Image.registered_extensions():
        pytest.skip(f"this Pillow was made without {suffix}")
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (300, 200), "red").save(path)
    with Image.open(thumbnails.thumbnail(path, 96, folders.thumbnails)) as small:
        assert small.size == (96, 64)


def test_what_a_killed_server_left_goes(tmp_path):
    unfinished = tmp_path / ".a.webp-abcd1234"
    unfinished.mkdir()
    thumbnails.prune(tmp_path)
    assert unfinished.is_dir()  # somebody may write there now
    os.utime(unfinished, (0, 0))
    thumbnails.prune(tmp_path)
    assert list(tmp_path.iterdir()) == []

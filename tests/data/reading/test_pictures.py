"""Files of pictures: every kind is read as a person sees it, and what is damaged is named."""

import re
import struct
import zlib

import numpy as np
import pytest
from comfyui_rollout.data.reading.cropping import to_latents
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.data.reading.pictures import look, read_image
from PIL import Image


def pixel(picture, place=(0, 0)):
    return picture.getpixel(place)


def test_pictures_are_turned_upright(tmp_path):
    """A phone's portrait (EXIF orientation 6) is trained as people see it: turned right by a quarter."""
    lying = Image.new("RGB", (16, 8), "white")
    lying.paste("black", (0, 0, 8, 8))  # dark at the left, which is the top when held upright
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "phone.jpg", exif=exif, quality=100, subsampling=0)
    upright = read_image(tmp_path / "phone.jpg", "L")
    assert upright.size == (8, 16)
    assert pixel(upright, (4, 2)) < 30
    assert pixel(upright, (4, 13)) > 225


@pytest.mark.parametrize(("background", "expected"), [("white", (255, 127, 127)), ("black", (128, 0, 0))])
def test_the_background_shows_through_transparency(paint, background, expected):
    """Half-transparent red becomes pink on white and dark on black, not an arbitrary colour."""
    path = paint("a.png", (255, 0, 0, 128), mode="RGBA")
    assert pixel(read_image(path, background=background)) == pytest.approx(expected, abs=1)


def test_a_transparent_palette_shows_the_background(tmp_path):
    """Palette pictures with a transparent entry (GIF, small PNG) are no exception."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    read = read_image(tmp_path / "a.png")
    assert [pixel(read, (0, 0)), pixel(read, (1, 0))] == [(255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize(("values", "expected"), [([0, 0.5, 1], [0, 128, 255]), ([0, 128, 300], [0, 128, 255])])
def test_floats_are_scaled(tmp_path, values, expected):
    """0..1, as most programs write them, would be black; what goes beyond is taken for 0..255."""
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "a.tiff")
    read = read_image(tmp_path / "a.tiff", "L")
    assert [pixel(read, (x, 0)) for x in range(3)] == expected


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    """Scans and renders have 0..65535; Pillow alone would turn all but the darkest of it white."""
    pixels = np.array([[0, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert [pixel(read, (x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]
    assert [pixel(read_image(tmp_path / "a.png", "L"), (x, 0)) for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("mode", ["L", "1", "LA", "CMYK", "P"])
def test_every_kind_of_picture_becomes_three_channels(tmp_path, mode):
    """Grey, black-and-white, print colours and palettes can lie side by side in one folder."""
    name = "a.tif" if mode == "CMYK" else "a.png"
    Image.new("RGB", (4, 4), "white").convert("L" if mode == "LA" else mode).convert(mode).save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert (read.mode, pixel(read)) == ("RGB", (255, 255, 255))


def test_grey_on_request(paint):
    """color L gives one channel."""
    assert to_latents(read_image(paint("a.png", "white"), "L")).shape == (1, 4, 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_a_file_cut_short_is_named(tmp_path, noise_picture, cut_short, suffix):
    """An unfinished download is found whatever its format, by the quick look as well as by the full one."""
    path = tmp_path / f"cat.{suffix}"
    noise_picture.save(path)
    cut_short(path)
    message = rf"cannot read .*cat\.{suffix}: \w+"
    assert re.match(message, look(path).damage)
    with pytest.raises(ValueError, match=message):
        read_image(path)


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp"])
def test_every_format_is_turned_once(tmp_path, suffix):
    """Pillow turns TIFF by itself: asked once more, a tall picture went to a wide bucket, and lost 75%."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (128, 64)).save(path, exif=exif)
    assert look(path).size == read_image(path).size[::-1] == (128, 64)
    item = ImageFolder(tmp_path, size=128, buckets=True).items[0]
    assert (item.bucket, item.lost) == ((128, 64), 0)


def test_a_picture_too_large_to_open_in_a_trainers_words(tmp_path):
    """No talk of bombs: how many megapixels, and what to do."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(b"")]
    path = tmp_path / "huge.png"
    packed = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert re.search(r"huge\.png: it has more than 179 megapixels; make it smaller", look(path).damage)

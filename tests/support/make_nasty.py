"""Folders of files as people really have them, each of another kind, with a word that must be said of it.

python make_nasty.py FOLDER

makes one data set for each kind below the folder, a good picture with its caption among the nasty ones, and prints
what must be said.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

GERMAN, RUSSIAN = "ein süßer Hund, Größe 5", "рыжая собака"
TWO = "2 images x 1 repeat"
"""The nasty file is trained like the good one."""
ONE = "1 image x 1 repeat"


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    make: Callable[[Path], object]
    """Writes it into a folder that has ``good.png`` and ``good.txt``."""
    says: str
    """What must be said of the folder."""
    refused: bool = False
    """Whether that is an error, so that nothing is trained."""
    caption: str | None = None
    """The caption that the nasty picture must have."""
    needs: str = ""
    """The suffix that Pillow must know for this kind."""


def picture(
    name: str,
    size: tuple[int, int] = (64, 64),
    mode: str = "RGB",
    colour: Any = None,
    format: str | None = None,
    **options: Any,
) -> Callable[[Path], None]:
    """A picture of one colour."""

    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, 0 if colour is None else colour).save(path, format=format, **options)

    return make


def frames(name: str) -> Callable[[Path], None]:
    """A moving picture."""

    def make(folder: Path) -> None:
        first, *others = (Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue"))
        first.save(folder / name, save_all=True, append_images=others)

    return make


def content(name: str, data: bytes | str) -> Callable[[Path], None]:
    """A file of these bytes."""

    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    return make


def all_of(*makers: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


def captioned(data: bytes | str, name: str = "bad.txt") -> Callable[[Path], None]:
    """A picture, and these bytes as its caption."""
    return all_of(picture("bad.png"), content(name, data))


def cut(format: str, share: float = 0.5) -> bytes:
    """A picture's file whose end is missing."""
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(whole, format)
    return whole.getvalue()[: int(len(whole.getvalue()) * share)]


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG file of that size."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"")]
    packed = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(folder / target)


def rows(*named: tuple[str, str]) -> str:
    return "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in named)


def apart(text: str) -> str:
    """Accents as Macs write them: letter and accent, one behind the other."""
    return unicodedata.normalize("NFD", text)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
UNREADABLE = "unreadable image: cannot read"
WESTERN = "decoded as Windows-1252: bad.txt"
HALF = "holds a caption that was cut in the middle of a letter: write"
NOT_WESTERN = "bad.txt is neither UTF-8 nor surely Western European text: save it as UTF-8"

KINDS: dict[str, Kind] = {
    # Pictures of every make
    "capital suffix": Kind(picture("bad.JPG"), TWO),
    "jfif": Kind(picture("bad.jfif", format="JPEG"), TWO),
    "jpe": Kind(picture("bad.jpe", format="JPEG"), TWO),
    "webp": Kind(picture("bad.webp"), TWO),
    "avif": Kind(picture("bad.avif"), TWO, needs=".avif"),
    "bmp": Kind(picture("bad.bmp"), TWO),
    "jpeg 2000": Kind(picture("bad.jp2"), TWO, needs=".jp2"),
    "targa": Kind(picture("bad.tga"), TWO),
    "ppm": Kind(picture("bad.ppm"), TWO),
    "pgm of 16 bits": Kind(picture("bad.pgm", mode="I;16", format="PPM"), TWO),
    "moving gif": Kind(frames("bad.gif"), TWO),
    "moving png": Kind(frames("bad.apng"), TWO, needs=".apng"),
    "tiff of pages": Kind(frames("bad.tiff"), TWO),
    "print colours": Kind(picture("bad.jpg", mode="CMYK"), TWO),
    "grey": Kind(picture("bad.jpg", mode="L"), TWO),
    "grey with transparency": Kind(picture("bad.png", mode="LA"), TWO),
    "palette": Kind(picture("bad.png", mode="P"), TWO),
    "palette with transparency": Kind(picture("bad.gif", mode="P", transparency=0), TWO),
    "black and white": Kind(picture("bad.png", mode="1"), TWO),
    "16 bits": Kind(picture("bad.png", mode="I;16"), TWO),
    "floats": Kind(picture("bad.tif", mode="F"), TWO),
    "upright by exif": Kind(picture("bad.jpg", (128, 64), exif=turned()), "128x64: 1"),
    "tiff upright by exif": Kind(picture("bad.tif", (128, 64), exif=turned()), "128x64: 1"),
    "exif of nonsense": Kind(picture("bad.jpg", exif=b"Exif\0\0nonsense"), TWO),
    "png called jpg": Kind(picture("bad.jpg", format="PNG"), TWO),
    "one pixel": Kind(picture("bad.png", (1, 1)), "being smaller: bad.png"),
    "panorama": Kind(picture("bad.png", (1280, 64)), "bad.png 90%; raise max_aspect_ratio"),
    "alone in its bucket": Kind(picture("bad.png", (128, 64)), "some several times: 64x128 (1)"),
    # Names and places
    "newline in its name": Kind(picture("bad\nname.png"), "none for bad?name.png (empty)"),
    "quotes in its name": Kind(picture("bad 'name\".png"), TWO),
    "emoji in its name": Kind(picture("bad \U0001f415.png"), TWO),
    "very long name": Kind(picture("b" * 200 + ".png"), TWO),
    "several dots": Kind(
        all_of(picture("bad.v2.final.png"), content("bad.v2.final.txt", "a dog")), TWO, caption="a dog"
    ),
    "link to a picture": Kind(link("bad.png", "good.png"), TWO),
    "link to nothing": Kind(link("bad.png", "gone.png"), "links to nothing, or no plain file: bad.png"),
    "link that leads back": Kind(link("again", "."), ONE),
    "folder called like a picture": Kind(lambda folder: (folder / "bad.png").mkdir(), ONE),
    "jupyter's copies": Kind(picture(".ipynb_checkpoints/a-checkpoint.png"), "hidden or system: .ipynb_checkpoints"),
    "a mac's archive": Kind(content("__MACOSX/._good.png", b"\0\5\x16\7"), "hidden or system: __MACOSX"),
    "a mac's shadow": Kind(content("._good.png", b"\0\5\x16\7"), "hidden or system: ._good.png"),
    "thumbnails of a storage": Kind(picture("@eaDir/good.png"), "hidden or system: @eaDir"),
    "recycle bin": Kind(picture("$RECYCLE.BIN/good.png"), "hidden or system: $RECYCLE.BIN"),
    "deep hidden": Kind(picture("a/.cache/good.png"), "hidden or system: a/.cache"),
    "system files": Kind(
        all_of(content("Thumbs.db", b"\0"), content("desktop.ini", "x"), content(".DS_Store", b"\0")), ONE
    ),
    # Masks
    "onetrainer's mask": Kind(picture("good-masklabel.png", mode="L"), "masks: 1 of 1"),
    "mask without its picture": Kind(picture("bad-masklabel.png"), "mask without its picture: bad-masklabel.png"),
    "conditioning picture": Kind(
        picture("good-condlabel.png"), "conditioning picture (-condlabel): good-condlabel.png"
    ),
    "mask that is cut short": Kind(content("good-masklabel.png", cut("PNG")), "mask: cannot read", refused=True),
    # Not read
    "jpeg xl": Kind(content("bad.jxl", b"\xff\x0a"), "bad.jxl"),
    "heic": Kind(content("bad.heic", b"\0\0\0\x18ftypheic"), "(convert it to JPEG or PNG, or install Pillow's"),
    "photoshop": Kind(content("bad.psd", b"8BPS"), "1 file .psd (convert to JPEG or PNG), e.g. bad.psd"),
    "raw photo": Kind(content("bad.CR2", b"II*\0"), "1 file .cr2 (convert to JPEG or PNG), e.g. bad.CR2"),
    "video": Kind(content("bad.mp4", b"\0\0\0\x18ftypmp42"), "1 file .mp4"),
    "drawing": Kind(content("bad.svg", "<svg/>"), "1 file .svg"),
    "latents of another trainer": Kind(content("good_0512x0512_sd.npz", b"PK"), "1 file .npz"),
    "archive": Kind(content("photos.zip", b"PK"), "1 file .zip"),
    "half a download": Kind(content("bad.png.crdownload", b"\x89PNG"), "1 file .crdownload"),
    "no suffix": Kind(content("LICENSE", "free"), "1 file without a suffix"),
    # Damaged
    "empty file": Kind(content("bad.png", b""), UNREADABLE),
    "jpeg cut short": Kind(content("bad.jpg", cut("JPEG")), UNREADABLE),
    "png cut short": Kind(content("bad.png", cut("PNG")), UNREADABLE),
    "webp cut short": Kind(content("bad.webp", cut("WEBP")), UNREADABLE),
    "gif cut short": Kind(content("bad.gif", cut("GIF")), UNREADABLE),
    "damaged, a newline in its name": Kind(content("bad\nname.png", "no"), "bad?name.png: cannot identify image file"),
    "web page called jpg": Kind(content("bad.jpg", "<html>not found</html>"), UNREADABLE),
    "pointer of git lfs": Kind(content("bad.png", LFS), UNREADABLE),
    "no width": Kind(content("bad.png", png(0, 64)), UNREADABLE),
    "400 megapixels": Kind(content("bad.png", png(20_000, 20_000)), "more than 179 megapixels; make it smaller"),
    # Captions
    "captions in capitals": Kind(captioned("a dog", "bad.TXT"), "captions: 2 of 2", caption="a dog"),
    "dot caption": Kind(captioned("a dog", "bad.caption"), "captions: 2 of 2", caption="a dog"),
    "no caption": Kind(picture("bad.png"), "captions: 1 of 2; none for bad.png (empty)", caption=""),
    "empty caption": Kind(captioned(""), "1 caption empty: bad.png", caption=""),
    "caption of spaces": Kind(captioned(" \n\t\n"), "1 caption empty: bad.png", caption=""),
    "byte order mark": Kind(captioned(GERMAN.encode("utf-8-sig")), "captions: 2 of 2", caption=GERMAN),
    "utf-16": Kind(captioned(GERMAN.encode("utf-16")), "decoded as utf-16: bad.txt", caption=GERMAN),
    "utf-16 without mark": Kind(captioned(GERMAN.encode("utf-16-le")), "decoded as utf-16-le", caption=GERMAN),
    "utf-32": Kind(captioned(GERMAN.encode("utf-32")), "decoded as utf-32", caption=GERMAN),
    "windows quotes": Kind(captioned("the dog\u2019s bed".encode("cp1252")), WESTERN, caption="the dog\u2019s bed"),
    "latin-1": Kind(captioned(GERMAN.encode("latin-1")), WESTERN, caption=GERMAN),
    "cyrillic windows": Kind(captioned(RUSSIAN.encode("cp1251")), NOT_WESTERN, refused=True),
    "koi8": Kind(captioned(RUSSIAN.encode("koi8-r")), NOT_WESTERN, refused=True),
    "shift-jis": Kind(captioned("赤い犬".encode("shift_jis")), NOT_WESTERN, refused=True),
    "gbk": Kind(captioned("红色的狗".encode("gbk")), NOT_WESTERN, refused=True),
    "picture as caption": Kind(captioned(png(8, 8)), "holds zero bytes", refused=True),
    "huge caption": Kind(captioned(b"a" * (1 << 21)), "larger than 1 MiB", refused=True),
    "folder as caption": Kind(
        all_of(picture("bad.png"), lambda folder: (folder / "bad.txt").mkdir()), "captions: 1 of 2"
    ),
    "windows line ends": Kind(captioned("a dog\r\n"), "captions: 2 of 2", caption="a dog"),
    "accents apart": Kind(
        all_of(picture("b\u00e4d.png"), content(apart("b\u00e4d.txt"), "a dog")),
        "captions: 2 of 2",
        caption="a dog",
    ),
    "json caption": Kind(captioned('{"caption": "a dog"}', "bad.json"), "captions: 2 of 2", caption="a dog"),
    "json tags": Kind(captioned('{"tags": ["dog", "red"]}', "bad.json"), "captions: 2 of 2", caption="dog, red"),
    "json without caption": Kind(captioned('{"width": 5}', "bad.json"), "1 JSON file without a caption: bad.json"),
    "broken json": Kind(captioned("{", "bad.json"), "1 JSON file without a caption: bad.json"),
    "metadata.jsonl": Kind(
        captioned(rows(("bad.png", "a dog")), "metadata.jsonl"), "captions: 2 of 2", caption="a dog"
    ),
    "metadata of absent pictures": Kind(content("metadata.jsonl", rows(("gone.png", "x"))), "metadata.jsonl: gone.png"),
    "broken metadata": Kind(
        content("metadata.jsonl", "{}\n{"), "metadata.jsonl, line 1: there is no file_name", refused=True
    ),
    "metadata.csv": Kind(
        captioned('file_name,text\nbad.png,"a dog, red"\n', "metadata.csv"), "captions: 2 of 2", caption="a dog, red"
    ),
    "metadata.csv of an old mac": Kind(
        captioned("file_name,text\rbad.png,a dog\r", "metadata.csv"), "captions: 2 of 2", caption="a dog"
    ),
    "metadata.csv of one endless field": Kind(
        captioned("file_name,text\nbad.png," + "x" * 200_000, "metadata.csv"), "metadata.csv, line 2: ", refused=True
    ),
    "half an emoji": Kind(captioned('{"caption": "a \\ud83d"}', "bad.json"), f"bad.json {HALF}", refused=True),
    "half an emoji in metadata": Kind(
        captioned('{"file_name": "bad.png", "text": "\\udc15"}', "metadata.jsonl"), f"jsonl {HALF}", refused=True
    ),
    "caption without picture": Kind(content("gone.txt", "a dog"), "1 caption file without an image: gone.txt"),
    "two pictures, one caption": Kind(picture("good.jpg"), "good.jpg, good.png share good.txt"),
    # Folders of other trainers
    "kohya's folder": Kind(picture("10_sks dog/bad.png"), "10_sks dog x 10", caption="sks dog"),
    "kohya's folder of once": Kind(picture("1_dog/bad.png"), "1_dog x 1", caption="dog"),
    "folder of a year": Kind(picture("2024_holidays/bad.png"), TWO, caption=""),
    "folder of zero": Kind(picture("0_zero/bad.png"), TWO, caption=""),
}


def make(folder: Path, name: str) -> Path:
    """The data set of one kind; returns its folder, in which the nasty picture comes before the good one."""
    place = folder / name.replace("'", "").replace(" ", "_")
    place.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(place / "good.png")
    (place / "good.txt").write_text("a good picture")
    KINDS[name].make(place)
    return place


if __name__ == "__main__":
    for kind in KINDS:
        print(f"{make(Path(sys.argv[1]), kind).name:<32} {KINDS[kind].says}")

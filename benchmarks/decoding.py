"""What decoding pictures on several threads saves, against one: a folder of photographs, alone and to be encoded.

``--pictures`` JPEGs of ``--side`` pixels are cut to ``--size``. Each way is taken in turn, ``--rounds`` times in this
process, and the median of each round's ratio counts, so that a busy machine weighs on both. ``decode``: pixels alone.
``encode``: behind a small network on this CPU, which computes with one thread. ``batch``: batches of 8, as a step reads
them.
The pixels are the same to the bit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.data.reading import ahead as threading
from comfyui_rollout.data.reading.images import ImageFolder
from PIL import Image
from report import conclude, table
from torch import Tensor, nn

CENTER = (0.5, 0.5)


def make(folder: Path, count: int, side: int) -> None:
    """Photographs with some detail, no two alike."""
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        photograph = BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(photograph, "JPEG", quality=92)
        (folder / f"{number:04d}.jpg").write_bytes(photograph.getvalue())


def decode(images: ImageFolder, workers: int, then: Callable[[Tensor], object]) -> list[Tensor]:
    with threading.ahead(lambda item: images.pixels(item, CENTER), images.items, workers) as made:
        found = []
        for pixels in made:
            then(pixels)
            found.append(pixels)
        return found


def batches(images: ImageFolder, workers: int) -> list[Tensor]:
    own, threading.threads = threading.threads, lambda: workers
    try:
        starts = range(0, len(images.items) - 7, 8)
        return [
            images.batch(list(range(start, start + 8)), ItemGenerators(0, "bench", start, 8)).latents
            for start in starts
        ]
    finally:
        threading.threads = own


def encoder() -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 8, 3, 2, 1)]
    network = nn.Sequential(*layers).eval()
    return lambda pixels: network(pixels[None])


def seconds(way: Callable[[int], list[Tensor]], workers: int) -> tuple[float, list[Tensor]]:
    begun = time.perf_counter()
    made = way(workers)
    return time.perf_counter() - begun, made


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=int, default=48)
    options.add_argument("--side", type=int, default=2048)
    options.add_argument("--size", type=int, default=512)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    several = threading.threads()
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="decoding-") as place, torch.no_grad():
        make(Path(place), chosen.pictures, chosen.side)
        images, encode = ImageFolder(Path(place), size=chosen.size), encoder()
        ways: dict[str, Callable[[int], list[Tensor]]] = {
            "decode": lambda workers: decode(images, workers, lambda pixels: None),
            "encode": lambda workers: decode(images, workers, encode),
            "batch": lambda workers: batches(images, workers),
        }
        for name, way in ways.items():
            rounds = [(seconds(way, 1), seconds(way, several)) for _ in range(chosen.rounds)]
            assert all(torch.equal(*pair) for (_, one), (_, many) in rounds for pair in zip(one, many, strict=True))
            one, many = (median(each[place][0] for each in rounds) / chosen.pictures for place in (0, 1))
            figures[f"{name}, times as fast"] = median(alone[0] / more[0] for alone, more in rounds)
            rows.append((name, 1000 * one, 1000 * many, figures[f"{name}, times as fast"]))
    table(("what", "ms a picture, 1 thread", f"{several} threads", "times as fast"), rows)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return conclude(figures, {}, {})  # no bound: where the other cores are busy, there is nothing to be gained


if __name__ == "__main__":
    sys.exit(main())

"""What an index of 10 million pictures costs, and how fast pictures come out of shards.

Rows of ``--rows`` pictures in ``--shards`` shards are generated, not the pictures; all that training makes of them is
real: the kept files are read, sorted into buckets, and batches are planned. Then ``--pictures`` small pictures are
written as a folder and as shards, and read as batches. Bounds are on the peak of memory, and on ratios of processor
time.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from threading import Event

import numpy as np
from comfyui_rollout.data.data import EpochOrders, ItemGenerators, Loader, plan_batch
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.data.shards import index as indexing
from comfyui_rollout.data.shards.images import ShardImages
from comfyui_rollout.data.shards.index import ROW, TEXT, Found, index_of
from comfyui_rollout.data.shards.source import Shards, shards_at
from PIL import Image
from report import conclude, table

BATCH = 64


def generated(shards: Shards, number: int, stopped: Event) -> Found:
    """In place of reading a shard: as many rows as the name of its file says, of a thousand sizes."""
    count = int(shards.paths[number].rpartition("x")[2])
    random = np.random.default_rng(number)
    rows = np.zeros(count, ROW)
    rows["length"], rows["lead"], rows["kind"] = random.integers(50_000, 500_000, count), 512, TEXT
    rows["caption_length"] = random.integers(20, 300, count)
    rows["start"] = np.cumsum(rows["length"].astype(np.uint64) + 2048)
    rows["caption"] = rows["start"] + rows["length"] + 512
    rows["height"], rows["width"] = (64 * random.integers(6, 38, count) for _ in range(2))
    return Found(rows)


def named(rows: int, shards: int) -> Shards:
    names = [f"shard-{number}-x{rows // shards}" for number in range(shards)]
    return Shards(None, tuple(names), (0,) * shards, tuple(names))


def large(rows: int, shards: int, kept: Path) -> None:
    """In a process of its own, whose memory it is: prints seconds of the starts and the plans, and its peak."""
    indexing.read_through = generated
    before = peak()
    first = start(named(rows, shards), kept)[0]
    second, images = start(named(rows, shards), kept)
    more = start(named(rows + rows // shards, shards + 1), kept)[0]
    begun = time.process_time()
    orders = EpochOrders()
    plan_batch(images.info, BATCH, 0, 0, "data", orders)
    fresh = time.process_time() - begun
    begun = time.process_time()
    for number in range(1, 1001):
        plan_batch(images.info, BATCH, number, 0, "data", orders)
    print(first, second, more, fresh, (time.process_time() - begun) / 1000, before, peak(), len(images.info.groups))


def start(shards: Shards, kept: Path) -> tuple[float, ShardImages]:
    begun = time.process_time()
    images = ShardImages(index_of(shards, kept), size=1024, buckets=True)
    return time.process_time() - begun, images


def peak() -> float:
    """Gigabytes that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def write(place: Path, count: int, in_a_shard: int) -> None:
    """Small JPEGs with captions, as a folder and as shards."""
    coarse = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(picture, "JPEG", quality=90)
    (place / "folder").mkdir()
    (place / "tars").mkdir()
    for first in range(0, count, in_a_shard):
        with tarfile.open(place / "tars" / f"{first:08d}.tar", "w") as tar:
            for number in range(first, min(count, first + in_a_shard)):
                for suffix, data in (("jpg", picture.getvalue()), ("txt", f"picture {number}".encode())):
                    info = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    (place / "folder" / info.name).write_bytes(data)


def per_second(images: ImageFolder | ShardImages, batches: int) -> float:
    """Pictures of 64 x 64 per second of processor time, orders included."""
    loader = Loader(images, BATCH, 0, "data")
    begun = time.process_time()
    for number in range(batches):
        images.batch(
            plan_batch(images.info, BATCH, number, 0, "data", loader.orders),
            ItemGenerators(0, "data", number * BATCH, BATCH),
        )
    return batches * BATCH / (time.process_time() - begun)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--shards", type=int, default=1_000)
    options.add_argument("--pictures", type=int, default=4_096)
    options.add_argument("--large", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.large:
        large(chosen.rows, chosen.shards, chosen.large)
        return 0
    with tempfile.TemporaryDirectory(prefix="shards-") as place:
        kept = Path(place) / "index"
        command = [sys.executable, __file__, "--large", str(kept)]
        command += ["--rows", str(chosen.rows), "--shards", str(chosen.shards)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        first, second, more, fresh, plan, before, most, groups = map(float, said)
        on_disk = sum(path.stat().st_size for path in kept.iterdir()) / (chosen.rows + chosen.rows // chosen.shards)
        write(Path(place), chosen.pictures, 512)
        begun = time.process_time()
        shards = ShardImages(index_of(shards_at(f"{place}/tars"), Path(place) / "real"))
        reading = time.process_time() - begun
        begun = time.process_time()
        index_of(shards_at(f"{place}/tars"), Path(place) / "real")
        again = time.process_time() - begun
        batches = chosen.pictures // BATCH
        folder = ImageFolder(Path(place) / "folder")
        speeds = {"folder": per_second(folder, batches), "shards": per_second(shards, batches)}
    table(
        ("index", "seconds"),
        (
            (f"first start, {chosen.rows:,} generated rows", first),
            ("second start", second),
            ("one shard more", more),
            ("order of an epoch of one bucket", fresh),
            (f"plan of a batch, {groups:.0f} buckets", plan),
            (f"first start, {chosen.pictures} real pictures", reading),
            ("second start of these", again),
        ),
    )
    print(f"memory: {most:.2f} GB, {before:.2f} GB of which before; the index takes {on_disk:.1f} bytes a row on disk")
    table(("source", "pictures a second"), tuple(speeds.items()))
    figures = {
        "peak GB": most,
        "bytes per row": on_disk,
        "ms per plan": 1000 * plan,
        "second start of first": again / reading,
        "speed of a folder's": speeds["shards"] / speeds["folder"],
    }
    at_most = {"peak GB": 4.0, "bytes per row": 40.0, "second start of first": 0.25}
    return conclude(figures, at_most, {"speed of a folder's": 0.8})


if __name__ == "__main__":
    sys.exit(main())

"""What a start costs with a large folder of pictures: the first one, which looks at all of them, and those after it.

Photographs of ``--side`` pixels, ``--pictures`` of them, are written first. Figures are seconds of processor time, and
the bound is on how many times cheaper the second start is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.data.reading.index import TICK
from PIL import Image
from report import conclude, table


def make(folder: Path, count: int, side: int) -> None:
    """JPEGs of one content: what is in them is nobody's concern, that they are decoded is."""
    coarse = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    photograph = BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(photograph, "JPEG", quality=90)
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(photograph.getvalue())
    time.sleep(TICK / 1e9 + 0.1)  # a file of just now is not kept


def start(folder: Path, indexes: Path) -> tuple[float, ImageFolder]:
    begun = time.process_time()
    found = ImageFolder(folder, size=64, indexes=indexes)
    return time.process_time() - begun, found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=int, default=5_000)
    options.add_argument("--side", type=int, default=1024)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="index-") as place:
        folder, indexes = Path(place) / "pictures", Path(place) / "index"
        make(folder, chosen.pictures, chosen.side)
        first, looked = start(folder, indexes)
        second, known = start(folder, indexes)
        assert [(item.path, item.size) for item in looked.items] == [(item.path, item.size) for item in known.items]
        (folder / "000007.jpg").unlink()
        third, _ = start(folder, indexes)
        megabytes = sum(path.stat().st_size for path in indexes.iterdir()) / 1e6
    rows = (("first", first), ("second", second), ("after one was removed", third))
    table(("start", "seconds", "ms a picture"), [(name, took, 1000 * took / chosen.pictures) for name, took in rows])
    print(f"the index takes {megabytes:.2f} MB")
    figures = {"first start": first, "second start": second, "times cheaper": first / second}
    return conclude(figures, {}, {"times cheaper": 4.0})


if __name__ == "__main__":
    sys.exit(main())

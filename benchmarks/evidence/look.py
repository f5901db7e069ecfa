"""Samples side by side: what each recipe makes of the same noise in 4, 8 and 32 Euler steps.

python benchmarks/evidence/look.py docs/images/evidence_samples.png [--data emoji] [--budget long] [--seed 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from arms import ARMS
from comfyui_rollout.models.saving import load_model
from PIL import Image, ImageDraw
from run import DATA, labels_of, samples, trained
from torch import Tensor

STEPS, COLUMNS, ZOOM, MARGIN = (4, 8, 32), 24, 3, 22


def row_of(latents: Tensor) -> Image.Image:
    """Pictures (n, C, H, W) in -1..1, side by side."""
    pixels = ((latents.clamp(-1, 1) + 1) * 127.5).round().byte()
    strip = pixels.expand(-1, 3, -1, -1).permute(2, 0, 3, 1).flatten(1, 2)
    picture = Image.fromarray(strip.contiguous().numpy())
    return picture.resize((picture.width * ZOOM, picture.height * ZOOM), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--data", choices=DATA, default="emoji")
    parser.add_argument("--budget", default="long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["teacher_forcing", "fresh_300"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    told = labels_of(options.data)
    told = told[torch.linspace(0, len(told) - 1, COLUMNS).round().long()]
    rows = []
    for steps in STEPS:
        for arm in options.arms:
            model = load_model(trained(arm, options.data, options.seed, options.budget))
            rows.append((f"{steps} steps, {ARMS[arm].words}", row_of(samples(model, "euler", steps, told))))
    width, height = rows[0][1].size
    sheet = Image.new("RGB", (width, len(rows) * (height + MARGIN)), "white")
    for place, (words, row) in enumerate(rows):
        top = place * (height + MARGIN)
        ImageDraw.Draw(sheet).text((4, top + 5), words.replace("`", ""), "black")
        sheet.paste(row, (0, top + MARGIN))
    sheet.save(options.picture)


if __name__ == "__main__":
    main()

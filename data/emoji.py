"""Colour pictures that come with the nodes: the faces among Google's Noto emoji."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator

from .data import Batch, DatasetInfo, no_class

SIDE, COLUMNS = 24, 16
"""Pixels of a face, and faces side by side on the sheet."""


class Emoji:
    """118 emoji faces on white, 24x24, as latents (N, 3, 24, 24) in -1..1, from emoji.png beside this file.

    They are the faces of Noto Emoji 2.048 by Google (Apache License 2.0), as the npm package
    emoji-datasource-google 16.0.0 has them, scaled down. The classes are Unicode's groups of faces.
    """

    def __init__(self) -> None:
        with Image.open(Path(__file__).with_name("emoji.png")) as sheet:
            names, labels = (sheet.info[what].split(",") for what in ("names", "labels"))
            pixels = np.array(sheet)
        self.labels = torch.tensor([int(label) for label in labels])
        tiles = torch.from_numpy(pixels).float().unflatten(0, (-1, SIDE)).unflatten(2, (-1, SIDE)).transpose(1, 2)
        faces = tiles.reshape(-1, SIDE, SIDE, 3)[: len(labels)].permute(0, 3, 1, 2)
        self.latents = (faces / 127.5 - 1).contiguous()
        self.info = DatasetInfo("emoji", len(labels), 3, SIDE, tuple(names))

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        return Batch(self.latents[items], {"label": self.labels[items]}, negative=no_class)

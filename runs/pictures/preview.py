"""Latents as pictures that a person can look at."""

from __future__ import annotations

from typing import TypeAlias

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from ...diffusion.rollout import NoisyBatch
from ...models.vae_preview import VaeColours, VaePreviews
from ...training.stream import Run

MIN_CELL = 48
"""Tiny latents are enlarged, pixel by pixel, to at least this many pixels."""
MOST_ITEMS = 8
GAP = 2
MARGIN = 84


Colours: TypeAlias = "Tensor | VaeColours | None"
"""What a data set's latents look like: its own linear map (C + 1, 3), or a VAE, or nobody knows."""


def colours_of(run: Run) -> Colours:
    """What the latents of the run's data set look like, if that is known."""
    told = (getattr(part.about, "colours", None) for part in run.parts)
    found = next((colours for colours in told if colours is not None), None)
    return run.keep("colours", lambda: found.begin(run.device)) if isinstance(found, VaePreviews) else found


def to_rgb(latents: Tensor, colours: Colours = None) -> Tensor:
    """Latents (B, C, H, W) in about -1..1 as colours (B, 3, H, W) in 0..1; larger ones, if a VAE decodes them.

    Where nobody knows what they look like, one channel is grey, three are red, green and blue, and of more the first
    three are shown.
    """
    if isinstance(colours, VaeColours):
        return colours(latents)
    latents = latents.detach().float().cpu()
    if colours is not None and len(colours) == latents.shape[1] + 1:
        return (torch.einsum("bchw,cr->brhw", latents, colours[:-1]) + colours[-1][:, None, None]).clamp(0, 1)
    if latents.shape[1] not in (1, 3):
        latents = F.pad(latents, (0, 0, 0, 0, 0, max(0, 3 - latents.shape[1])))[:, :3] / 3
    if latents.shape[1] == 1:
        latents = latents.expand(-1, 3, -1, -1)
    return (latents / 2 + 0.5).clamp(0, 1)


def linear(colours: Colours) -> Tensor | None:
    """The linear map to colours, also where a VAE would decode."""
    return colours.linear if isinstance(colours, VaeColours) else colours


def around_grey(colours: Colours) -> Tensor | None:
    """The linear map for differences of latents: no difference is grey."""
    known = linear(colours)
    return None if known is None else torch.cat([known[:-1], torch.full((1, 3), 0.5)])


def enlarge(colours: Tensor, cell: int = MIN_CELL) -> Tensor:
    """Enlarge (B, 3, H, W) by a whole factor until it is at least ``cell`` high."""
    factor = max(1, -(-cell // colours.shape[-2]))
    return colours.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def grid(colours: Tensor, columns: int) -> Image.Image:
    """Pictures (B, 3, H, W) in 0..1, row by row, with a thin gap between them."""
    colours = enlarge(colours)
    count, _, height, width = colours.shape
    columns = min(columns, count)
    lines = -(-count // columns)
    sheet = torch.full((3, lines * (height + GAP) - GAP, columns * (width + GAP) - GAP), 0.13)
    for place, picture in enumerate(colours):
        top, left = place // columns * (height + GAP), place % columns * (width + GAP)
        sheet[:, top : top + height, left : left + width] = picture
    return to_image(sheet)


def to_image(colours: Tensor) -> Image.Image:
    """Colours (3, H, W) in 0..1 as a picture."""
    return Image.fromarray((colours * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def labelled(picture: Image.Image, labels: list[str]) -> Image.Image:
    """The picture with a name at the left of each of its rows."""
    sheet = Image.new("RGB", (picture.width + MARGIN, picture.height), "#212121")
    sheet.paste(picture, (MARGIN, 0))
    draw, font, row = ImageDraw.Draw(sheet), ImageFont.load_default(12), picture.height / len(labels)
    for place, label in enumerate(labels):
        draw.multiline_text((6, (place + 0.5) * row), label, "#dddddd", font, anchor="lm")
    return sheet


def picture_of_latents(
    latents: Tensor, columns: int = MOST_ITEMS, most: int = MOST_ITEMS, colours: Colours = None
) -> Image.Image:
    """The first few of a batch of latents side by side."""
    return grid(to_rgb(latents[:most], colours), columns)


def picture_of_rollout(batch: NoisyBatch, colours: Colours = None) -> Image.Image:
    """Teacher-forced latents, rolled-out latents and their difference, for the longest rollouts of the batch.

    The difference is enlarged to the full range of colours, and its label says how far.
    """
    order = torch.argsort(batch.lengths, descending=True, stable=True)[:MOST_ITEMS].to(batch.x.device)
    forced, rolled = batch.teacher_forced[order], batch.x[order]
    drift = (rolled - forced).float().cpu()
    largest = float(drift.abs().max())
    difference = to_rgb(drift / largest if largest else drift, around_grey(colours))
    rows = [to_rgb(forced, colours), to_rgb(rolled, colours)]
    rows.append(F.interpolate(difference, size=rows[0].shape[-2:]))
    gain = f"x{1 / largest:.3g}" if largest else "none"
    return labelled(grid(torch.cat(rows), len(order)), ["teacher-\nforced", "rolled out", f"difference\n{gain}"])

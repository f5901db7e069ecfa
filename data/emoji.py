"""Faces in colour, like emoji: each drawn anew from a few strokes, so that nothing has to come from anywhere."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Generator

from .data import Batch, DatasetInfo, no_class

SIDE, FINE = 24, 96
"""Pixels of a picture, and of the sheet on which it is drawn before it is made smaller."""
INK, WHITE, TEAR, HEART, TONGUE = (70, 45, 20), (255, 255, 255), (70, 150, 245), (225, 35, 60), (235, 90, 100)

Point = tuple[float, float]


@dataclass(frozen=True)
class Mood:
    """What makes a face: its hue in turns, and which eyes, mouth and more it may have."""

    name: str
    hue: float
    eyes: tuple[str, ...]
    mouths: tuple[str, ...]
    more: tuple[str, ...] = ("",)


MOODS = (
    Mood("smiling", 0.13, ("round", "arched"), ("smile", "grin")),
    Mood("laughing", 0.13, ("arched", "squeezed"), ("laugh",), ("", "tears")),
    Mood("winking", 0.13, ("wink",), ("smile", "tongue", "laugh")),
    Mood("in love", 0.13, ("hearts",), ("smile", "laugh")),
    Mood("cool", 0.13, ("glasses",), ("smile", "grin", "flat")),
    Mood("surprised", 0.13, ("wide",), ("oh",), ("", "brows")),
    Mood("sad", 0.13, ("round",), ("frown",), ("", "worry")),
    Mood("crying", 0.13, ("round", "closed"), ("frown", "wail"), ("tears",)),
    Mood("sleepy", 0.11, ("closed",), ("oh", "flat"), ("bubble",)),
    Mood("angry", 0.01, ("round",), ("frown", "teeth"), ("anger",)),
    Mood("sick", 0.26, ("closed", "squeezed"), ("wave", "frown")),
    Mood("cold", 0.57, ("wide", "round"), ("teeth", "wave")),
)


class Face:
    """One face on its sheet; places are in units of its radius, from its middle."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.sheet = Image.new("RGB", (FINE, FINE), WHITE)
        self.draw = ImageDraw.Draw(self.sheet)
        self.radius = FINE * random.uniform(0.4, 0.46)
        self.middle = tuple(FINE / 2 + FINE * random.uniform(-0.03, 0.03) for _ in range(2))
        self.apart, self.high = random.uniform(0.3, 0.4), random.uniform(-0.28, -0.14)
        self.low, self.wide = random.uniform(0.32, 0.44), random.uniform(0.36, 0.5)

    def at(self, x: float, y: float) -> Point:
        return self.middle[0] + x * self.radius, self.middle[1] + y * self.radius

    def oval(self, x: float, y: float, width: float, height: float, fill: tuple[int, ...]) -> None:
        self.draw.ellipse([*self.at(x - width, y - height), *self.at(x + width, y + height)], fill)

    def line(self, *points: Point, width: float = 0.11) -> None:
        pen = round(width * self.radius)
        places = [self.at(*point) for point in points]
        self.draw.line(places, INK, pen, "curve")
        for x, y in (places[0], places[-1]):
            self.draw.ellipse([x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2], INK)

    def bow(self, x: float, y: float, width: float, height: float) -> None:
        """A bow that hangs down by ``height``, or stands up where that is negative."""
        steps = [step / 8 - 1 for step in range(17)]
        self.line(*((x + width * each, y + height * (1 - each * each)) for each in steps))

    def half(self, x: float, y: float, width: float, height: float, fill: tuple[int, ...], upper: bool = False) -> None:
        """The lower half of an oval, or the upper one."""
        box = [*self.at(x - width, y - height), *self.at(x + width, y + height)]
        self.draw.pieslice(box, *((180, 360) if upper else (0, 180)), fill)

    def heart(self, x: float, y: float, size: float) -> None:
        for side in (-1, 1):
            self.oval(x + side * size / 2, y - size / 4, size / 1.8, size / 1.8, HEART)
        self.draw.polygon([self.at(x - size, y), self.at(x + size, y), self.at(x, y + 1.2 * size)], HEART)


def drawn(mood: Mood, random: Random) -> Image.Image:
    """A face of that mood, SIDE x SIDE in RGB."""
    face = Face(random)
    tone = [colorsys.hsv_to_rgb((mood.hue + random.uniform(-0.02, 0.02)) % 1, random.uniform(0.6, 0.85), level)
            for level in (0.86, 1.0)]  # fmt: skip
    rim, skin = (tuple(round(255 * part) for part in each) for each in tone)
    face.oval(0, 0, 1, 1, rim)
    face.oval(0, -0.03, 0.93, 0.93, skin)
    draw_more(face, random.choice(mood.more))
    draw_mouth(face, random.choice(mood.mouths))
    draw_eyes(face, random.choice(mood.eyes))
    turned = face.sheet.rotate(random.uniform(-14, 14), Image.Resampling.BICUBIC, fillcolor=WHITE)
    return turned.resize((SIDE, SIDE), Image.Resampling.BOX)


def draw_eyes(face: Face, kind: str) -> None:
    apart, high, size = face.apart, face.high, face.random.uniform(0.12, 0.16)
    if kind == "glasses":
        face.line((-0.9, high - 0.05), (0.9, high - 0.05))
        for side in (-1, 1):
            face.half(side * apart, high - 0.1, 0.36, 0.42, INK)
    for side in (-1, 1):
        x = side * apart
        match "arched" if kind == "wink" and side > 0 else "round" if kind == "wink" else kind:
            case "round":
                face.oval(x, high, size, 1.3 * size, INK)
            case "wide":
                face.oval(x, high, 1.9 * size, 2.1 * size, WHITE)
                face.oval(x, high, size, size, INK)
            case "arched":
                face.bow(x, high + 0.1, 0.2, -0.24)
            case "closed":
                face.bow(x, high, 0.2, 0.14)
            case "squeezed":
                face.line((x + side * 0.18, high - 0.18), (x - side * 0.16, high), (x + side * 0.18, high + 0.18))
            case "hearts":
                face.heart(x, high - 0.05, 0.31)


def draw_mouth(face: Face, kind: str) -> None:
    low, wide = face.low, face.wide
    match kind:
        case "smile":
            face.bow(0, low - 0.05, wide, 0.3)
        case "grin":
            face.half(0, low - 0.12, wide * 1.1, 0.5, INK)
            face.half(0, low - 0.05, wide * 0.9, 0.32, WHITE)
        case "laugh":
            face.half(0, low - 0.14, wide * 1.15, 0.58, INK)
            face.oval(0, low + 0.26, wide * 0.55, 0.14, TONGUE)
        case "tongue":
            face.bow(0, low - 0.05, wide, 0.25)
            face.half(0.08, low + 0.12, 0.2, 0.38, TONGUE)
        case "frown":
            face.bow(0, low + 0.25, wide * 0.85, -0.28)
        case "wail":
            face.half(0, low + 0.35, wide * 0.8, 0.5, INK, upper=True)
        case "oh":
            face.oval(0, low + 0.06, 0.2, 0.26, INK)
        case "flat":
            face.line((-wide * 0.8, low + 0.08), (wide * 0.8, low + 0.02))
        case "teeth":
            face.draw.rounded_rectangle(
                [*face.at(-wide, low - 0.12), *face.at(wide, low + 0.24)],
                face.radius / 8,
                WHITE,
                INK,
                round(face.radius / 12),
            )
            face.line((-wide, low + 0.06), (wide, low + 0.06), width=0.05)
        case "wave":
            face.line(*((wide * x / 8, low + 0.08 + 0.09 * math.sin(x * math.pi / 4)) for x in range(-8, 9)))


def draw_more(face: Face, kind: str) -> None:
    for side in (-1, 1):
        x, high = side * face.apart, face.high
        match kind:
            case "tears":
                face.oval(x * 1.35, high + 0.5, 0.16, 0.36, TEAR)
            case "brows":
                face.bow(x, high - 0.38, 0.2, -0.12)
            case "worry":
                face.line((x - side * 0.18, high - 0.42), (x + side * 0.16, high - 0.28))
            case "anger":
                face.line((x - side * 0.2, high - 0.2), (x + side * 0.24, high - 0.42), width=0.13)
    if kind == "bubble":
        face.oval(0.42, face.low - 0.08, 0.26, 0.28, (150, 205, 255))


class Emoji:
    """Emoji faces on white, as latents (N, 3, 24, 24) in -1..1: ``each`` of every mood, which are the classes.

    The same faces each time, none twice.
    """

    def __init__(self, each: int = 100) -> None:
        faces = [drawn(mood, Random(f"{mood.name} {number}")) for number in range(each) for mood in MOODS]
        pixels = torch.from_numpy(np.stack([np.asarray(face) for face in faces]))
        self.latents = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()
        self.labels = torch.arange(len(faces)) % len(MOODS)
        self.info = DatasetInfo("emoji", len(faces), 3, SIDE, tuple(mood.name for mood in MOODS))

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        return Batch(self.latents[items], {"label": self.labels[items]}, negative=no_class)

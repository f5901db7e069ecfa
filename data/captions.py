"""Captions: the text beside an image, and what is made of it for training."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

import torch

from ..diffusion import seeds

SUFFIXES = (".txt", ".caption")
PLACE_OF_TRIGGER = "[trigger]"


def caption_file(image: Path) -> Path | None:
    """The text beside the image: same stem, ``.txt`` or else ``.caption``; None where there is neither."""
    return next((text for suffix in SUFFIXES if (text := image.with_suffix(suffix)).is_file()), None)


def read_caption(text: Path) -> str:
    """The caption in a file of UTF-8, or of UTF-16 if it says so; raises ValueError, naming it, for no text at all."""
    data = text.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    caption = data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
    if "\0" in caption:
        raise ValueError(f"the caption {text} holds zero bytes, so it is no UTF-8 text: save it as UTF-8")
    return caption.strip()


@dataclass(frozen=True)
class CaptionSettings:
    """What is made of each caption."""

    trigger_word: str = ""
    """Put in place of every ``[trigger]``, or in front of a caption that has neither."""
    shuffle_tags: bool = False
    """Comma-separated tags come in another order; the trigger word in front stays there."""
    variants: int = 4
    """How many orders there are of each caption, where tags are shuffled."""
    dropout: float = 0.0
    """Chance in 0..1, each time an image is drawn, that the empty caption stands in for its own."""

    def variants_of(self, caption: str) -> tuple[str, ...]:
        """The texts that may be drawn for an image with this caption; always the same ones."""
        orders = [shuffled(caption, number) for number in range(self.variants)] if self.shuffle_tags else [caption]
        return tuple(dict.fromkeys(self.with_trigger(order) for order in orders))

    def with_trigger(self, caption: str) -> str:
        word = self.trigger_word.strip()
        if PLACE_OF_TRIGGER in caption:
            return caption.replace(PLACE_OF_TRIGGER, word)
        if word in caption:
            return caption
        return ", ".join(part for part in (word, caption) if part)


def shuffled(caption: str, number: int) -> str:
    """The caption's comma-separated tags in order ``number``; 0 is the order in which they were written."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    if number == 0 or len(tags) < 2:
        return caption
    order = torch.randperm(len(tags), generator=seeds.generator(number, caption, "order of tags"))
    return ", ".join(tags[place] for place in order.tolist())

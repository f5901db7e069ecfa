"""What is made of a caption for training: a trigger word, shuffled tags, or none at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from ...diffusion import seeds

PLACE_OF_TRIGGER = "[trigger]"


@dataclass(frozen=True)
class CaptionSettings:
    """What is made of each caption."""

    trigger_word: str = ""
    """Put in place of every ``[trigger]``, or in front of a caption that has neither."""
    shuffle_tags: bool = False
    """Comma-separated tags come in another order; a trigger word that is a tag, or is in the first one, stays first."""
    variants: int = 4
    """How many orders there are of each caption, where tags are shuffled."""
    dropout: float = 0.0
    """Chance in 0..1, each time an image is drawn, that the empty caption stands in for its own."""
    keep_tags: int = 0
    """So many tags in front stay where they are while the others are shuffled."""

    def variants_of(self, caption: str) -> tuple[str, ...]:
        """The texts that may be drawn for an image with this caption; always the same ones."""
        written = self.with_trigger(caption)
        orders = range(1, self.variants) if self.shuffle_tags else ()
        return tuple(dict.fromkeys([written, *(self.shuffled(caption, number) for number in orders)]))

    def with_trigger(self, caption: str) -> str:
        """The caption with the trigger word in its place, or in front where the caption does not have it."""
        word = self.trigger_word.strip()
        if PLACE_OF_TRIGGER in caption:
            return caption.replace(PLACE_OF_TRIGGER, word)
        if has_word(caption, word):
            return caption
        return ", ".join(part for part in (word, caption) if part)

    def shuffled(self, caption: str, number: int) -> str:
        """The comma-separated tags in order ``number``, the trigger word and the kept ones in front."""
        word = self.trigger_word.strip()
        tags = [tag for part in caption.split(",") if (tag := part.replace(PLACE_OF_TRIGGER, word).strip())]
        inside = [tag for tag in tags if word and tag != word and has_word(tag, word)]
        first = [word] if word and (word in tags or not inside) else []
        tags = [tag for tag in tags if tag not in first]
        kept = max(self.keep_tags, int(not first and tags[:1] == inside[:1]))
        others = tags[kept:]
        if len(others) < 2:
            return self.with_trigger(caption)
        order = torch.randperm(len(others), generator=seeds.generator(number, caption, "order of tags"))
        return ", ".join([*first, *tags[:kept], *(others[place] for place in order.tolist())])


def has_word(text: str, word: str) -> bool:
    """Whether the text has it as a whole word, not as a part of another."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None

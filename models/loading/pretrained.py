"""A pretrained model on a wire: a description, of which nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from .hub import local_folder
from .source import PretrainedInfo, Source
from .weight_count import count_weights, in_words, network_bytes


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model on a wire: where it is, and what is known of it. Nothing is loaded."""

    source: Source
    info: PretrainedInfo

    def weights(self) -> dict[str, int]:
        """How many weights each component has, as far as their files are on this machine (see weight_count.py)."""
        return count_weights(self.source, self.info, local_folder(self.source.home))

    def in_words(self) -> str:
        """``Stable Diffusion XL, 2.57 B weights, 5.1 GB in bf16``."""
        kind, count = self.info.kind, self.weights().get(self.info.kind.network_part)
        if not count:
            return f"{kind.title}, to be downloaded"
        kept = self.source.storage if self.source.quantization == "none" else self.source.quantization
        size = in_words(network_bytes(self.source, count), "B")
        return f"{kind.title}, {in_words(count)} weights, {size} in {kept}"

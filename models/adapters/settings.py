"""What an adapter is put into a network with: its kind, rank, alpha and layers, in peft's words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from .layers import Adapter, AdapterKind, kronecker_shape
from .original import Layers

if TYPE_CHECKING:
    from peft import PeftConfig


RANKS, ALPHAS = PATTERNS = ("rank_pattern", "alpha_pattern")
"""Where peft keeps the ranks and alphas of single layers."""


@dataclass(frozen=True)
class AdapterSettings:
    """What is put into a network, and where."""

    name: str
    """Unique among the adapters of a network."""
    kind: AdapterKind = "lora"
    rank: int = 16
    alpha: float = 16.0
    """The adapter counts alpha / rank times (alpha / sqrt(rank) with rsLoRA)."""
    targets: tuple[str, ...] | str = ()
    """Ends of the names of the layers that get one, or a regular expression for whole names."""
    dropout: float = 0.0
    dora: bool = False
    rslora: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Layers with another rank."""
    alphas: Mapping[str, float] = field(default_factory=dict)
    """Layers with another alpha."""
    factor: int = -1
    """LoKr: into how many parts the sides of a matrix are cut; -1 = near the square root."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(AdapterKind):
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(get_args(AdapterKind))}")
        if self.kind != "lora" and (self.dora or self.rslora):
            raise ValueError(f"{'dora' if self.dora else 'rslora'} goes with kind lora only, not with {self.kind}")

    def config(self) -> PeftConfig:
        """peft's settings."""
        import peft

        common: dict[str, Any] = {
            "r": self.rank,
            "target_modules": self.targets if isinstance(self.targets, str) else list(self.targets),
            "rank_pattern": {f"^{re.escape(layer)}": rank for layer, rank in self.ranks.items()},
            "alpha_pattern": {f"^{re.escape(layer)}": alpha for layer, alpha in self.alphas.items()},
        }
        if self.kind == "lora":
            return peft.LoraConfig(
                **common,
                lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft takes fractions too
                lora_dropout=self.dropout,
                use_dora=self.dora,
                use_rslora=self.rslora,
            )
        if self.kind == "lokr":
            return peft.LoKrConfig(
                **common, alpha=self.alpha, module_dropout=self.dropout, decompose_factor=self.factor  # type: ignore[arg-type]
            )  # fmt: skip
        return peft.LoHaConfig(**common, alpha=self.alpha, module_dropout=self.dropout)  # type: ignore[arg-type]


def settings_of(adapter: Adapter, layers: Layers, name: str, dropout: float = 0.0) -> AdapterSettings:
    """The settings that make room for this very adapter: its layers, and the rank and alpha of each."""
    parts = list(adapter.values())
    rank = Counter(part.rank for part in parts).most_common(1)[0][0]
    alpha = Counter(part.alpha for part in parts).most_common(1)[0][0]
    kind = parts[0].kind
    return AdapterSettings(
        name,
        kind,
        rank,
        alpha,
        targets="|".join(map(re.escape, adapter)),
        dropout=dropout,
        dora=parts[0].has_magnitude,
        ranks={layer: part.rank for layer, part in adapter.items() if part.rank != rank},
        alphas={layer: part.alpha for layer, part in adapter.items() if part.alpha != alpha},
        factor=kronecker_factor(adapter, layers) if kind == "lokr" else -1,
    )


def kronecker_factor(adapter: Adapter, layers: Layers) -> int:
    """The setting under which peft cuts the layers' matrices as this LoKr has them; raises ValueError if none does."""
    from peft.tuners.lokr.layer import factorization

    cuts = set()
    for layer, part in adapter.items():
        rows, columns = kronecker_shape(part, "lokr_w1")
        cuts |= {(layers[layer][0], rows), (layers[layer][1], columns)}
    for factor in (-1, *sorted({first for _, first in cuts})):
        if all(factorization(side, factor)[0] == first for side, first in cuts):
            return factor
    raise ValueError("this LoKr cuts its matrices in a way that peft cannot")

"""Optimizers and learning-rate schedules: torch's, transformers', diffusers', and those of optional libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..models.model import trained_in

OptimizerName = Literal[
    "adamw", "adafactor", "sgd", "muon", "prodigy", "came", "lion", "adamw_schedule_free", "adamw_8bit"
]
NAMES: tuple[str, ...] = get_args(OptimizerName)

LIBRARIES = {
    "prodigy": "pytorch_optimizer",
    "came": "pytorch_optimizer",
    "lion": "pytorch_optimizer",
    "adamw_schedule_free": "pytorch_optimizer",
    "adamw_8bit": "bitsandbytes",
}
"""Optimizers of optional libraries, by the module that has them."""

REMEMBERED = {"adamw": 8, "adafactor": 0, "sgd": 4, "muon": 4, "prodigy": 16, "came": 4, "lion": 4,
              "adamw_schedule_free": 8, "adamw_8bit": 2}  # fmt: skip
"""Bytes that an optimizer keeps for each weight; what adafactor keeps for each row and column is next to nothing."""

LEAST_FACTOR = 0.1
"""Prodigy multiplies the rate that it finds by learning_rate; a rate meant for adamw would train nothing."""


def installed() -> list[str]:
    """The optimizers that can be used here."""
    return [name for name in NAMES if name not in LIBRARIES or find_spec(LIBRARIES[name])]


def check_optimizer(name: str, learning_rate: float | None = None) -> None:
    """Raises ValueError, naming the remedy, for an optimizer that is unknown, not installed or would not learn."""
    if name not in NAMES:
        raise ValueError(f"unknown optimizer {name!r}: one of {', '.join(installed())}")
    if name not in installed():
        package = LIBRARIES[name].replace("_", "-")
        raise ValueError(
            f"optimizer: {name} needs {package}, which is not installed: pip install {package}, or choose adamw"
        )
    if name == "prodigy" and learning_rate is not None and 0 < learning_rate < LEAST_FACTOR:
        raise ValueError(
            f"learning_rate: prodigy finds the rate itself and multiplies it by this, and {learning_rate:g} would "
            "leave nothing of it: set 1"
        )


@dataclass(frozen=True)
class OptimizerSettings:
    """Which optimizer, at what pace."""

    name: OptimizerName = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    beta1: float = 0.9
    """The first beta of AdamW, Prodigy, CAME and Lion; momentum for SGD and Muon."""
    beta2: float = 0.999
    """The second beta of AdamW, Prodigy and CAME; Lion has its own."""
    lr_schedule: str = "constant"
    """diffusers' name: constant, constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial."""
    warmup_steps: int = 0
    num_cycles: int = 3
    """How often cosine_with_restarts starts again."""
    relative_step: bool = False
    """Adafactor: a step is learning_rate (at most 1 / sqrt(t)) times the size of the weight itself. A new LoRA, half of
    which is zero, hardly learns so."""

    def optimizers(self, network: nn.Module) -> list[Optimizer]:
        """One optimizer; two for Muon, which is made for matrices: AdamW takes all other parameters."""
        check_optimizer(self.name, self.learning_rate)
        trained = list(trained_in(network).values())
        return self._muon(trained) if self.name == "muon" else [self._single(trained)]

    def _single(self, parameters: list[nn.Parameter]) -> Optimizer:
        betas = (self.beta1, self.beta2)
        if self.name == "adamw":
            return self._make(torch.optim.AdamW, parameters, betas=betas)
        if self.name == "sgd":
            return self._make(torch.optim.SGD, parameters, momentum=self.beta1)
        if self.name == "adafactor":
            return self._adafactor(parameters)
        if self.name == "adamw_8bit":
            import bitsandbytes

            return self._make(bitsandbytes.optim.AdamW8bit, parameters, betas=betas)
        import pytorch_optimizer

        if self.name == "prodigy":
            options = {"bias_correction": True, "safeguard_warmup": True}
            return self._make(pytorch_optimizer.Prodigy, parameters, betas=betas, **options)
        if self.name == "came":
            return self._make(pytorch_optimizer.CAME, parameters, betas=(*betas, 0.9999))
        if self.name == "lion":
            return self._make(pytorch_optimizer.Lion, parameters, betas=(self.beta1, 0.99))
        return self._make(pytorch_optimizer.ScheduleFreeAdamW, parameters, betas=betas)

    def _make(self, kind: Callable[..., Optimizer], parameters: list[nn.Parameter], **options: Any) -> Optimizer:
        return kind(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, **options)

    def _adafactor(self, parameters: list[nn.Parameter]) -> Optimizer:
        """arXiv 1804.04235; torch's knows relative steps only."""
        if self.relative_step:
            return self._make(torch.optim.Adafactor, parameters)
        from transformers.optimization import Adafactor

        return self._make(Adafactor, parameters, scale_parameter=False, relative_step=False)

    def _muon(self, parameters: list[nn.Parameter]) -> list[Optimizer]:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"Muon needs torch 2.9 or newer, and this is {torch.__version__}: choose adamw")
        matrices = [parameter for parameter in parameters if parameter.dim() == 2]
        others = [parameter for parameter in parameters if parameter.dim() != 2]
        if not matrices:
            raise ValueError("Muon trains matrices, and this network has none: choose adamw")
        # One learning rate serves both.
        options = {"momentum": self.beta1, "adjust_lr_fn": "match_rms_adamw"}
        muon = self._make(torch.optim.Muon, matrices, **options)
        adamw = self._make(torch.optim.AdamW, others, betas=(self.beta1, self.beta2)) if others else None
        return [muon, adamw] if adamw else [muon]

    def scheduler(self, optimizer: Optimizer, steps: int, done: int = 0) -> LRScheduler:
        """The learning rate over ``steps`` updates, of which some are ``done``: it depends on nothing but these."""
        from diffusers.optimization import get_scheduler

        for group in optimizer.param_groups:
            group["initial_lr"] = self.learning_rate  # asked for where the first steps were done before
        return get_scheduler(
            self.lr_schedule,
            optimizer,
            num_warmup_steps=min(self.warmup_steps, steps),
            num_training_steps=steps,
            num_cycles=self.num_cycles,
            last_epoch=done - 1,
        )


def average_by_themselves(optimizers: list[Optimizer]) -> list[Any]:
    """The schedule-free optimizers (arXiv 2405.15682): their ``eval()`` puts the averaged weights in place."""
    return [optimizer for optimizer in optimizers if hasattr(optimizer, "eval")]

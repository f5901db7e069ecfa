"""Optimizers and learning-rate schedules: torch's and diffusers' own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

OptimizerName = Literal["adamw", "adafactor", "sgd", "muon"]


@dataclass(frozen=True)
class OptimizerSettings:
    """Which optimizer, at what pace."""

    name: OptimizerName = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    beta1: float = 0.9
    """AdamW's first beta; momentum for SGD and Muon."""
    beta2: float = 0.999
    lr_schedule: str = "constant"
    """diffusers' name: constant, constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial."""
    warmup_steps: int = 0
    num_cycles: int = 3
    """How often cosine_with_restarts starts again."""

    def optimizers(self, network: nn.Module) -> list[Optimizer]:
        """One optimizer; two for Muon, which is made for matrices: AdamW takes all other parameters."""
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if self.name == "adamw":
            return [self._adamw(trained)]
        if self.name == "adafactor":
            return [torch.optim.Adafactor(trained, lr=self.learning_rate, weight_decay=self.weight_decay)]
        if self.name == "sgd":
            return [
                torch.optim.SGD(trained, lr=self.learning_rate, momentum=self.beta1, weight_decay=self.weight_decay)
            ]
        if self.name == "muon":
            return self._muon(trained)
        raise ValueError(f"unknown optimizer {self.name!r}: one of adamw, adafactor, sgd, muon")

    def _adamw(self, parameters: list[nn.Parameter]) -> Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(parameters, lr=self.learning_rate, betas=betas, weight_decay=self.weight_decay)

    def _muon(self, parameters: list[nn.Parameter]) -> list[Optimizer]:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"Muon needs torch 2.9 or newer, and this is {torch.__version__}: choose adamw")
        matrices = [parameter for parameter in parameters if parameter.dim() == 2]
        others = [parameter for parameter in parameters if parameter.dim() != 2]
        if not matrices:
            raise ValueError("Muon trains matrices, and this network has none: choose adamw")
        muon = torch.optim.Muon(
            matrices,
            lr=self.learning_rate,
            momentum=self.beta1,
            weight_decay=self.weight_decay,
            adjust_lr_fn="match_rms_adamw",  # so that one learning rate serves both
        )
        return [muon, self._adamw(others)] if others else [muon]

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

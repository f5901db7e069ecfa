"""Optimizer: how the weights are changed."""

from __future__ import annotations

from typing import Any

from ...training.optimizers import OptimizerName, OptimizerSettings, check_optimizer, installed
from ..base import CATEGORY, OPTIMIZER, Node
from ..inputs import choice, integer, number, switch


class Optimizer(Node):
    NODE_ID = "RolloutOptimizer"
    DISPLAY_NAME = "Optimizer"
    CATEGORY = f"{CATEGORY}/train"
    DESCRIPTION = "How the weights are changed, and how the learning rate goes over the training."
    SEARCH_ALIASES = (
        "adamw",
        "adafactor",
        "sgd",
        "muon",
        "prodigy",
        "lion",
        "came",
        "8bit",
        "learning rate",
        "lr scheduler",
        "weight decay",
        "betas",
        "warmup",
    )
    RETURN_TYPES = (OPTIMIZER,)
    RETURN_NAMES = ("optimizer",)
    OUTPUT_TOOLTIPS = ("Settings for Optimizer Step.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "optimizer": choice(
                    installed(),
                    "adamw",
                    "adamw: the safe choice. adafactor: least memory. sgd: plain. muon: for matrices, with adamw for "
                    "all other weights. Where pytorch-optimizer is installed, prodigy (finds the learning rate: set "
                    "1), came, lion (a third of adamw's rate) and adamw_schedule_free (needs no lr_schedule); with "
                    "bitsandbytes adamw_8bit.",
                ),
                "learning_rate": number(
                    1e-4,
                    0.0,
                    10.0,
                    1e-5,
                    "The size of a step. 1e-3 for small models from scratch, 1e-4 for LoRA, 1e-5 for full fine-tuning.",
                ),
                "lr_schedule": choice(
                    ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
                    "constant",
                    "How the learning rate goes over the training. cosine ends near zero: the cleanest images.",
                ),
                "warmup_steps": integer(
                    0, 0, 1_000_000, "Steps in which the learning rate rises from zero. Not used by constant."
                ),
                "weight_decay": number(0.01, 0.0, 1.0, 0.001, "Pulls weights towards zero."),
                "num_cycles": integer(3, 1, 1000, "cosine_with_restarts: how often it starts again.", advanced=True),
                "beta1": number(
                    0.9,
                    0.0,
                    0.9999,
                    0.01,
                    "Memory of past gradients: the first beta of adamw and its kin, the momentum of sgd and muon.",
                    advanced=True,
                ),
                "beta2": number(
                    0.999,
                    0.0,
                    0.99999,
                    0.001,
                    "The second beta of adamw, prodigy and came: memory of past squared gradients.",
                    advanced=True,
                ),
            },
            "optional": {
                "relative_step": switch(
                    False,
                    "adafactor: learning_rate counts in sizes of the weight itself, 1e-2 is usual; for full "
                    "fine-tuning, since a new LoRA begins at zero and would hardly learn.",
                    advanced=True,
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, optimizer: str, learning_rate: float) -> bool | str:
        try:
            if optimizer is not None:
                check_optimizer(optimizer, learning_rate)
        except ValueError as error:
            return str(error)
        return True

    def build(self, optimizer: OptimizerName, **options: Any) -> tuple[OptimizerSettings]:
        check_optimizer(optimizer, options["learning_rate"])
        return (OptimizerSettings(name=optimizer, **options),)

"""A saved state: what is known of it, whether a training may go on from it, and how it is put into a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files.weights import read_weights
from ...models.sharded import parted_like
from ..loop import Trainer
from .line import BEFORE, planned_steps, point_at
from .memory import check_memory, remember, up_to_date


@dataclass(frozen=True)
class SavedState:
    """What is known of a saved state before its tensors are put anywhere."""

    step: int
    """Updates that were done."""
    seed: int
    """The run's seed, which a resumed run goes on with."""
    optimizer: str
    averaged_updates: int | None = None
    """Updates of the averaged (EMA) weights; None where there were none."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What the optimizers remember that is no tensor, by the same names."""
    loss_scale: Mapping[str, Any] = field(default_factory=dict)
    """GradScaler's state; empty without fp16."""
    kept: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each node that keeps something from step to step (``Kept`` in stream.py), by its id: all but the tensors."""
    run: str = ""
    """The id of the run that it is of; empty in runs of versions before."""
    path: Path = Path()
    """The file with the tensors."""
    notes: tuple[str, ...] = ()
    """What the user shall know of how it was found, such as that a newer one is damaged."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent.parent

    def check(self, steps: int, optimizer: str) -> None:
        """Raises ValueError, before anything is loaded, where a training of so many steps cannot go on from here.

        Where all steps were done that the run was to have, it can: what comes after the training may be missing.
        """
        name = self.folder.name
        if steps < self.step or (steps == self.step != planned_steps(self.folder)):
            raise ValueError(f"resume: {name!r} has done {self.step} steps: set steps to more, to train it further")
        if optimizer != self.optimizer:
            raise ValueError(
                f"resume: {name!r} was trained with {self.optimizer}, and now the optimizer is {optimizer}: "
                f"choose {self.optimizer} again, or clear resume to begin anew"
            )

    def still_there(self) -> None:
        """Raises ValueError if another program has trained the run further since this state was found."""
        if not self.path.is_file():
            raise ValueError(f"resume: {self.folder.name!r} was trained further meanwhile: try again")

    def take(self) -> None:
        """From now on the run goes on from this state, and from none that came after it."""
        if self.path.name != BEFORE:
            point_at(self.path)

    def restore(self, trainer: Trainer) -> None:
        """Put the state into a trainer. Raises ValueError, before anything is changed, if it does not fit."""
        tensors = read_weights(self.path)
        weights, averages, memory = (below(tensors, kind) for kind in ("weights", "averaged", "optimizer"))
        run = self.folder.name
        check_fit(weights, trainer.weights, run)
        if averages or self.averaged_updates is not None:
            check_fit(averages, trainer.weights, run)
        check_memory(memory, trainer.weights, run, needed=self.step > 0 and self.optimizer != "sgd")
        check_finite(tensors, run)
        with torch.no_grad():
            for name, weight in trainer.weights.items():
                weight.copy_(parted_like(weights[name], weight))
        memory = up_to_date(trainer.settings, {**memory, **self.numbers})
        for number, optimizer in enumerate(trainer.optimizers):
            remember(optimizer, memory, trainer.weights)
            for place, group in enumerate(optimizer.param_groups):
                group.update(below(memory, f"group.{number}.{place}"))
        if average := trainer.run.averaged_weights:
            average.optimization_step = self.averaged_updates or 0
            for name, shadow in zip(trainer.weights, average.shadow_params, strict=True):
                shadow.copy_(parted_like(averages.get(name, weights[name]), shadow))
        if self.loss_scale and trainer.scaler.is_enabled():
            trainer.scaler.load_state_dict(dict(self.loss_scale))
        trainer.run.restore_kept(
            {node_id: {**values, **below(tensors, f"kept.{node_id}")} for node_id, values in self.kept.items()}
        )

    def in_words(self, trainer: Trainer) -> str:
        """One line for the user, who wants to be sure of what was restored."""
        if trainer.steps == self.step:
            return (
                f"{self.folder.name} has done all {self.step} steps: only what comes after the training is done now; "
                "set steps to more, to train it further"
            )
        rate = trainer.schedulers[0].get_last_lr()[0]
        average = ["averaged weights"] if self.averaged_updates and trainer.run.averaged_weights else []
        parts = ["weights", self.optimizer, *average, f"learning rate {rate:.3g}", f"seed {self.seed}"]
        words = f"{self.folder.name} goes on after step {self.step} of {trainer.steps}: {', '.join(parts)} restored"
        planned, curve = planned_steps(self.folder), trainer.settings.lr_schedule
        if planned in (None, trainer.steps) or curve.startswith("constant"):
            return words
        drawn = f"the {curve} learning rate was drawn over {planned} steps and is now over {trainer.steps}: it jumps"
        return f"{words}; {drawn}"


def below(tensors: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {name[len(kind) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}


def check_fit(saved: Mapping[str, Tensor], weights: Mapping[str, Tensor], run: str) -> None:
    """Raises ValueError where names or shapes of the trained weights differ."""
    there = {name: tuple(value.shape) for name, value in saved.items()}
    here = {name: tuple(value.shape) for name, value in weights.items()}
    if wrong := sorted(name for name in there | here if there.get(name) != here.get(name)):
        name = wrong[0]
        raise ValueError(
            f"resume: {run!r} trained another model: {len(wrong)} weights differ, e.g. {name}, which is "
            f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here; set the model as it was, or "
            "clear resume to begin anew"
        )


def check_finite(tensors: Mapping[str, Tensor], run: str) -> None:
    """Raises ValueError for weights that are no numbers."""
    spoilt = [
        name
        for name, value in tensors.items()
        if name.startswith(("weights.", "averaged.")) and not bool(value.isfinite().all())
    ]
    if spoilt:
        raise ValueError(f"resume: the weights in the state of {run!r} are no finite numbers, e.g. {spoilt[0]}")

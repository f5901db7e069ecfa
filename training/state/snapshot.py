"""A trainer's state as it is now, and its way onto the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...files.weights import digest_of, save_weights
from ...models.sharded import here, whole
from ..loop import Trainer
from .line import BEFORE, STATE, free_name, line_of, name_states, states_in
from .memory import memory_of
from .saved import SavedState


@dataclass(frozen=True)
class Snapshot:
    """A trainer's state on the CPU, apart from the trainer: it can be written while the training goes on."""

    facts: SavedState
    tensors: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        """Bytes."""
        return size_of(self.tensors)

    @property
    def in_words(self) -> str:
        return f"the state after step {self.facts.step}"

    def save(self, folder: Path, keep: int = 1) -> SavedState:
        """Keep it in a run's folder as the newest state, and of older ones so many that there are ``keep``.

        The older ones stay until this one is on the disk, and named; then those go that are not of its line: what a
        run has that went back to an earlier state.
        """
        state = folder / STATE
        named = {field: value for field, value in asdict(self.facts).items() if field not in ("path", "notes")}
        text = json.dumps(named)
        path, line = free_name(state, self.facts.step), line_of(folder)
        save_weights(path, self.tensors, {"facts": text, "digest": digest_of(self.tensors, text)})
        line = [path, *line[: max(0, keep - 1)]]
        name_states(line)
        for other in [*(other for other in states_in(folder) if other not in line), state / BEFORE]:
            with suppress(PermissionError):  # Windows, while somebody has it open: the next time, then
                other.unlink(missing_ok=True)
        return replace(self.facts, path=path)


def size_of(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def snapshot(trainer: Trainer, run: str = "", copy: bool = True) -> Snapshot:
    """The trainer's state now, as a copy; ``run`` is the id of the run. All processes ask, and the first one has it.

    Without ``copy`` it may be the trainer's own memory, and is good only until the next update.
    """
    average, kept = trainer.run.averaged_weights, trainer.run.state_of_kept()
    tensors = tensors_of(trainer)
    for node_id, values in kept.items():
        tensors |= {f"kept.{node_id}.{name}": value for name, value in parted(values)[0].items()}
    facts = SavedState(
        step=trainer.done,
        seed=trainer.run.seed,
        optimizer=trainer.settings.name,
        averaged_updates=average.optimization_step if average else None,
        numbers=parted(memory_of(trainer))[1],
        loss_scale=trainer.scaler.state_dict(),
        kept={node_id: parted(values)[1] for node_id, values in kept.items()},
        run=run,
    )
    own = tensors if copy else unshared(tensors)
    return Snapshot(facts, dict(on_cpu(own, trainer.processes.leads, copy)))


def save_state(folder: Path, trainer: Trainer, run: str = "", keep: int = 1) -> SavedState:
    """Keep the trainer's state in a run's folder; see :class:`Snapshot`."""
    return snapshot(trainer, run).save(folder, keep)


def on_cpu(tensors: Mapping[str, Tensor], kept: bool, copy: bool) -> Iterator[tuple[str, Tensor]]:
    """Tensors brought to the CPU one after the other, whole where processes hold parts of them.

    All processes must take part; ``kept`` says whether this one gets the tensors.
    """
    for name, value in tensors.items():
        together = whole(value.detach())
        if kept:
            yield name, together.to("cpu", copy=copy)


def tensors_of(trainer: Trainer) -> dict[str, Tensor]:
    """All tensors of the state: ``weights.<parameter>``, ``averaged.<parameter>``, ``optimizer.<parameter>.<what>``."""
    tensors: dict[str, Tensor] = {f"weights.{name}": weight for name, weight in trainer.weights.items()}
    if average := trainer.run.averaged_weights:
        shadows = zip(trainer.weights, average.shadow_params, strict=True)
        tensors |= {f"averaged.{name}": shadow for name, shadow in shadows}
    memory = unshared(parted(memory_of(trainer))[0])
    return tensors | {f"optimizer.{name}": value for name, value in memory.items()}


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which no two are the same memory, as a file wants them: 8-bit AdamW has one table for all weights."""
    found: dict[str, Tensor] = {}
    places = set()
    for name, value in tensors.items():
        place = here(value).untyped_storage().data_ptr()
        found[name] = value.clone() if place in places else value
        places.add(place)
    return found


def parted(values: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors among some values, for the weights file, and the others, for the facts."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}

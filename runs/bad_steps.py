"""Steps that were left out because a loss or a gradient was no finite number: told by items and levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..data.data import plan_batch
from ..data.names import name_of
from ..training.loop import Trainer
from ..training.stream import FiniteLosses

MOST_IN_A_ROW = 10
"""So many bad steps one after another are no accident: the run goes back to its last good state once, then it fails."""
MOST_NAMED = 4
"""Items that a line names."""


def in_words(trainer: Trainer, step: int, pulls: Sequence[FiniteLosses]) -> str:
    """``step 47: item 12 (cats/3.jpg) at timestep 417.0``; where all losses are finite, the gradient is not."""
    named = [words for pull in pulls for words in _items(trainer, pull)]
    if not named:
        return f"step {step}: the gradient is no finite number"
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"step {step}: {', '.join(named[:MOST_NAMED])}{more}"


def _items(trainer: Trainer, pull: FiniteLosses) -> Iterator[str]:
    source = trainer.loss.data()
    for row, finite in enumerate(pull.finite.tolist()):
        if finite:
            continue
        place = row if pull.places is None else int(pull.places[row])
        name = f"item {place} of the batch"
        if source is not None and "dataset" in source.inputs:
            dataset, size = source.inputs["dataset"], source.inputs["batch_size"]
            size *= trainer.processes.count
            items = plan_batch(dataset.info, size, pull.index, trainer.run.seed, source.node_id)
            name = name_of(dataset, items[place]) if place < len(items) else name
        yield name if pull.levels is None else f"{name} at timestep {float(pull.levels[row]):.1f}"

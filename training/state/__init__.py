"""The state of a training, from which it goes on as if it had never stopped.

Random numbers depend on (seed, node, step), batches on their position, and the learning rate on the step. So the state
is what the updates themselves have made: weights, what the optimizer remembers, averaged weights, the loss scale, and
what nodes keep from step to step and say how (``Kept`` in stream.py).

A run keeps its newest states, each in one file, ``state/step_000250.safetensors``, with the facts and a checksum of
all of it in the header. ``state/state.json`` names them, the one to go on from first; it is written when that is on the
disk, so there is always one that is whole. Runs of versions before have ``state.json`` and
``state.safetensors``, and go on from these.
"""

from .find import find_state
from .line import FACTS, STATE, facts_in, point_at, states_in
from .memory import memory_of
from .saved import SavedState
from .snapshot import Snapshot, parted, save_state, size_of, snapshot, tensors_of

__all__ = [
    "FACTS",
    "STATE",
    "SavedState",
    "Snapshot",
    "facts_in",
    "find_state",
    "memory_of",
    "parted",
    "point_at",
    "save_state",
    "size_of",
    "snapshot",
    "states_in",
    "tensors_of",
]

"""The chains of a whole training: what is kept from step to step, and saved with the training's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from ..kinds import by_kind, flattened
from ..noisy_batch import NoisyBatch
from ..rollouts.guidance import UNGUIDED, Guidance
from ..rollouts.plan import RolloutPlan
from ..share import Share
from ..solvers import Model, Solver, appended
from .life import Ride, renewed, seated
from .state import Chains, Lives, kind_of

UNHEARD = (
    "persistent rollouts go on from what the loss asks the network, and no loss told them: wire the batch into "
    "Diffusion Loss or ReflexFlow Loss, or choose fresh rollouts"
)


class Keeper:
    """Chains by kind: those of one image size do not fit in a batch of another, and wait until it comes again."""

    def __init__(self) -> None:
        self.chains: dict[str, Chains] = {}
        """By kind: the chains of this process. Chain i sits at place i of the global batch, and stays with the process
        that has that place."""
        self.lives: dict[str, Lives] = {}
        """By kind: how far the chains of all processes are."""
        self.undealt: set[str] = set()
        """Kinds whose chains were restored from a state: each process has all of them until the next batch of the kind
        comes, whose places say which ones it keeps."""
        self.ride: Ride | None = None
        """The chains in the batch that is trained now."""
        self.pull: int | None = None
        """The number of that batch (:attr:`~comfyui_rollout.training.stream.Step.index`), where it was told."""

    def seat(
        self,
        batch: NoisyBatch,
        model: Model,
        plan: RolloutPlan,
        solve: Solver,
        update: int,
        generator: Generator,
        guide: Guidance = UNGUIDED,
        *,
        remember: bool = False,
        pull: int | None = None,
    ) -> NoisyBatch:
        """The batch with as many chains in it as the plan says; what its loss asks the network moves them on.

        ``model`` is asked only by solvers with several calls a step, and for guidance. ``pull`` is the batch's number:
        the same one may be seated again, where the memory was too small for it. Raises ValueError where the loss of
        another batch before never told its chains what the network put out.
        """
        once_more = pull is not None and pull == self.pull
        if self.ride is not None and not self.ride.over and not once_more:
            raise ValueError(UNHEARD)
        self.pull = pull
        share, kind = batch.share, kind_of(batch)
        count = plan.seats(share.total, update, generator)
        if count == 0:
            return batch
        self._deal(kind, share)
        known, lives = self.chains.get(kind), self.lives.get(kind)
        chains, lives = renewed(known and known.to(batch.x.device), batch, count, plan, solve, update, generator, lives)
        self.chains[kind], self.lives[kind] = chains, lives
        here = len(share.first(count))
        if here == 0:
            self.lives[kind] = lives.older(count)
            return batch
        waiting = chains.items(slice(here, None))

        def arrive(advanced: Chains) -> None:
            self.chains[kind], self.lives[kind] = advanced.joined(waiting), lives.older(count)

        self.ride = Ride(chains.items(slice(here)), model, batch.schedule, solve, arrive, guide)
        return seated(batch, self.ride, remember=remember)

    def _deal(self, kind: str, share: Share) -> None:
        """Of restored chains keep those at the places of this process, however many processes had saved them."""
        if kind not in self.undealt:
            return
        self.undealt.discard(kind)
        chains = self.chains[kind]
        if share.is_whole:
            self.lives[kind] = chains.lives
            return
        count = min(len(chains), share.total)
        self.lives[kind] = chains.lives.items(slice(count))
        self.chains[kind] = chains.items(share.first(count))

    def oldest(self, update: int) -> int:
        """For how many updates the oldest chain has lived."""
        return max((lives.oldest(update) for lives in self.lives.values()), default=0)

    def state_dict(self) -> dict[str, Tensor]:
        """The chains here, as tensors named ``<kind>/<what>``."""
        return flattened({kind: chains.tensors() for kind, chains in self.chains.items()}, "/")

    def joined(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The state of all processes, made of each one's :meth:`state_dict` by rank: process r of n has the chains
        r, r + n, r + 2n ..."""
        names = dict.fromkeys(name for state in states for name in state)
        return {name: self._joined(name, states) for name in names}

    def _joined(self, name: str, states: Sequence[Mapping[str, Tensor]]) -> Tensor:
        parts = [state[name] for state in states if name in state]
        if len(parts) == 1 or name.partition("/")[0] in self.undealt:
            return parts[0]
        turns = torch.cat([torch.arange(len(part)) * len(parts) + rank for rank, part in enumerate(parts)])
        return appended(parts)[turns.argsort()]

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.chains = {}
        for chains in map(Chains.of, by_kind(state, "/").values()):
            kind = kind_of(chains)  # of states from before texts were padded several are one
            self.chains[kind] = self.chains[kind].joined(chains) if kind in self.chains else chains
        self.lives = {kind: chains.lives for kind, chains in self.chains.items()}
        self.undealt = set(self.chains)

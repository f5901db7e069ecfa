"""The chains of a whole training: what is kept from step to step, and saved with the training's state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from ..noisy_batch import NoisyBatch
from ..rollouts.guidance import UNGUIDED, Guidance
from ..rollouts.plan import RolloutPlan
from ..solvers import Model, Solver
from .life import Ride, renewed, seated
from .state import Chains, kind_of

UNHEARD = (
    "persistent rollouts go on from what the loss asks the network, and no loss told them: wire the batch into "
    "Diffusion Loss or ReflexFlow Loss, or choose fresh rollouts"
)


class Keeper:
    """Chains by kind: those of one image size do not fit in a batch of another, and wait until it comes again."""

    def __init__(self) -> None:
        self.chains: dict[str, Chains] = {}
        self.ride: Ride | None = None
        """The chains in the batch that is trained now."""

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
    ) -> NoisyBatch:
        """The batch with as many chains in it as the plan says; what its loss asks the network moves them on.

        ``model`` is asked only by solvers with several calls a step, and for guidance. Raises ValueError where nothing
        was heard of the last batch.
        """
        if self.ride is not None and not self.ride.over:
            raise ValueError(UNHEARD)
        count, kind = plan.seats(len(batch.x), update, generator), kind_of(batch)
        if count == 0:
            return batch
        known = self.chains.get(kind)
        chains = renewed(known and known.to(batch.x.device), batch, count, plan, solve, update, generator)
        self.chains[kind], waiting = chains, chains.items(slice(count, None))

        def arrive(advanced: Chains) -> None:
            self.chains[kind] = advanced.joined(waiting)

        self.ride = Ride(chains.items(slice(count)), model, batch.schedule, solve, arrive, guide)
        return seated(batch, self.ride, remember=remember)

    def oldest(self, update: int) -> int:
        """For how many updates the oldest chain has lived."""
        return max((chains.oldest(update) for chains in self.chains.values()), default=0)

    def state_dict(self) -> dict[str, Tensor]:
        """All chains, as tensors named ``<kind>/<what>``."""
        return {
            f"{kind}/{name}": value for kind, chains in self.chains.items() for name, value in chains.tensors().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        kinds: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            kind, _, what = name.partition("/")
            kinds.setdefault(kind, {})[what] = torch.clone(value)  # not the file's own memory
        self.chains = {kind: Chains.of(tensors) for kind, tensors in kinds.items()}

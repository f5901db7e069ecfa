"""The trajectory target's reference: the model's own path, walked finely, onto which the loss leads back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ...diffusion import losses
from ...diffusion.noisy_batch import NoisyBatch
from ...diffusion.rollouts.beside import Beside
from ...diffusion.rollouts.guidance import Guidance
from ...diffusion.rollouts.plan import RolloutPlan
from ...diffusion.schedules import Schedule
from ...diffusion.solvers import SOLVERS, Solver, solver
from ...diffusion.solvers import Model as Network
from ...diffusion.trajectory import fine_path, target_onto
from ...models.model import Model
from ...training.stream import Step, Stream
from ...training.weights import Teacher, averaged, other_weights
from ..inputs import choice, integer, number, settings_in
from ..models.model import check_guidance
from .negative import negative_rows
from .rolling import MEMORY

Target = losses.TargetType | Literal["trajectory"]

REFERENCE = {
    "reference_steps": integer(
        2,
        1,
        64,
        "trajectory: fine steps of the reference path for each rollout step. More is truer and slower.",
        advanced=True,
    ),
    "reference_weights": choice(
        ("live", "ema", "frozen"),
        "live",
        "trajectory: whose path is the reference. live: that of the weights in training. ema: of their running average "
        "(set ema_decay in Optimizer Step). frozen: of the weights, averaged if they are, as they were when rollouts "
        "began, a teacher that stands still; what reference_guidance needs. It costs a copy of what is trained.",
        advanced=True,
    ),
    "reference_sampler": choice(
        ("auto", *SOLVERS),
        "auto",
        "trajectory: the solver of the reference path; a better one than the rollout's. auto: unipc for live weights, "
        "heun for others. heun costs two forward passes a step, rk4 four.",
        advanced=True,
    ),
    "target_sampler": choice(
        ("euler", "rollout"),
        "euler",
        "trajectory: whose next step shall land on the reference path. euler: a plain step, best for few Euler steps. "
        "rollout: the Rollout's own sampler with all it remembers (heun and rk4 count as euler); it corrects only what "
        "that sampler gets wrong.",
        advanced=True,
    ),
    "reference_guidance": number(
        1.0,
        1.0,
        30.0,
        0.5,
        "trajectory: the reference path is walked with classifier-free guidance, and the model learns to be sampled "
        "without it (guidance is distilled): set reference_weights to frozen, or it guides again what is guided "
        "already. 1 is off; above, its forward passes are for twice the items.",
        advanced=True,
    ),
}


@dataclass(frozen=True)
class Reference:
    """The widgets above as settings."""

    reference_steps: int = 2
    reference_weights: str = "live"
    reference_sampler: str = "auto"
    target_sampler: str = "euler"
    reference_guidance: float = 1.0

    @property
    def is_guided(self) -> bool:
        return self.reference_guidance != 1

    @property
    def solve(self) -> Solver:
        """The solver of the reference path; ``auto`` is unipc for live weights and heun for others."""
        usual = "unipc" if self.reference_weights == "live" else "heun"
        return solver(usual if self.reference_sampler == "auto" else self.reference_sampler)

    def wants(self, target: Target) -> frozenset[str]:
        """What the rollout shall hand on: what its sampler remembers, where that sampler's next step is the target."""
        return frozenset({MEMORY} if target == "trajectory" and self.target_sampler == "rollout" else ())


def reference_in(widgets: Mapping[str, Any]) -> tuple[Reference, dict[str, Any]]:
    """Of a loss's widgets those of the reference as settings, and the others."""
    others = {name: value for name, value in widgets.items() if name not in REFERENCE}
    return settings_in(widgets, Reference), others


def reference_cost(batch: Stream, model: Stream, target: Target, reference: Reference) -> dict[str, Any]:
    """What the trajectory target's fine path will cost, said before it is paid; raises ValueError if it cannot be."""
    plan = next(batch.constants(RolloutPlan), None)
    if target != "trajectory":
        if plan is not None and plan.rollout == "none" and plan.active:
            raise ValueError(
                "rollout none leaves latents as they are, for the target trajectory alone: choose it, or fresh"
            )
        return {}
    if any(guide.active for guide in batch.constants(Guidance)):
        raise ValueError(
            "target trajectory leads a sampler without guidance: set guidance and sampling_guidance of Rollout to "
            "1 and 0, and reference_guidance here"
        )
    if reference.is_guided:
        check_guidance(model.about, "reference_guidance")
    if plan is None or not plan.active:
        return {}
    longest = plan.longest(next(batch.constants(Schedule), None))
    renoised = any(copies.levels for copies in batch.constants(Beside))  # whose path begins where they are
    coarse_steps = 1 if plan.rollout != "fresh" or renoised else longest + 1
    most = coarse_steps * reference.reference_steps * reference.solve.calls
    twice = ", each of them twice for guidance" if reference.is_guided else ""
    told = [f"the trajectory's reference takes up to {most} more forward passes per training step{twice}"]
    if reference.is_guided and reference.reference_weights != "frozen":
        told.append(
            "reference_guidance guides again what has learnt to be guided, and runs away: set reference_weights frozen"
        )
    return {"text": told}


def wanted_output(step: Step, model: Model, batch: NoisyBatch, target: Target, reference: Reference) -> Tensor:
    """What the network shall put out at ``batch.x`` (B, ...), without gradient."""
    if target != "trajectory":
        return losses.target(batch, target)
    weights = reference.reference_weights
    if weights == "ema" and step.run.averaged_weights is None and not step.run.schedule_free:
        raise ValueError("reference_weights is ema: set ema_decay in Optimizer Step, or choose live")
    guided: Network = model
    if reference.is_guided:
        rows = negative_rows(step, batch.negative, "reference_guidance")
        guided = Guidance(reference.reference_guidance, negative=rows).of(model)
    with model.evaluating(), with_weights(step, model, batch, weights):
        path = fine_path(guided, batch, reference_steps=reference.reference_steps, solve=reference.solve)
    if batch.listener is not None:
        batch.listener.landed(path.y)
    return target_onto(path, batch, batch.solve if reference.target_sampler == "rollout" else None)


def with_weights(step: Step, model: Model, batch: NoisyBatch, weights: str) -> AbstractContextManager[None]:
    """The model has the weights of the reference inside; frozen ones from the first batch on that is rolled out."""
    if weights == "frozen" and (batch.fine is not None or bool(batch.rolled.any())):
        return other_weights(step.run, model.network, step.keep(lambda: teacher(step, model)).put_into)
    return averaged(step.run, model.network) if weights == "ema" else nullcontext()


def teacher(step: Step, model: Model) -> Teacher:
    """The weights as they are now; their running average, which knows more, if there is one."""
    with averaged(step.run, model.network):
        return Teacher(list(model.trained.values()))

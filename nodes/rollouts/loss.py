"""Losses: what the model is punished for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from ...diffusion import losses, reflexflow
from ...diffusion.noisy_batch import NoisyBatch, Perturbation, predict
from ...diffusion.predictions import per_sample
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
from ..base import BATCH, CATEGORY, LOSS, MODEL, StepNode
from ..inputs import UNIQUE_ID, choice, integer, number, switch, wire
from ..models.model import check_guidance
from .negative import negative_rows
from .rolling import MEMORY

TARGET = choice(
    ("original", "clean", "trajectory"),
    "original",
    "What rolled-out latents are trained towards. original: the noise that was drawn. clean: straight at the clean "
    "image from where the latents really are. trajectory: back onto the model's own path, walked in finer steps; it "
    "does not blur.",
)

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


class DiffusionLoss(StepNode):
    NODE_ID = "RolloutDiffusionLoss"
    DISPLAY_NAME = "Diffusion Loss"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "The usual loss: how far the network's prediction is from the target. Works on teacher-forced and on "
        "rolled-out latents, for flow matching and for epsilon, v and sample prediction."
    )
    SEARCH_ALIASES = ("mse", "huber", "min snr")
    RETURN_TYPES = (LOSS,)
    RETURN_NAMES = ("loss",)
    OUTPUT_TOOLTIPS = ("One loss per image of the batch.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": wire(BATCH, "What to train on: from Noisy Batch or Rollout."),
                "model": wire(MODEL, "The model that is being trained."),
                "loss_type": choice(
                    ("mse", "huber"), "mse", "mse: squared error. huber: large errors count less, for noisy data."
                ),
                "huber_c": number(0.1, 0.001, 10.0, 0.01, "huber: where it turns from squared to straight."),
                "snr_gamma": number(
                    0.0,
                    0.0,
                    100.0,
                    0.5,
                    "Min-SNR weighting: low-noise levels count less. 5 is usual; 0 turns it off. With zero terminal "
                    "SNR the last level then counts nothing.",
                ),
                "target": TARGET,
            },
            "optional": REFERENCE,
            "hidden": UNIQUE_ID,
        }

    def build(self, unique_id: str, **inputs: Any) -> dict[str, Any]:
        stream = self.stream(unique_id, inputs, wants=wants_memory(inputs))
        return {"ui": reference_cost(inputs["batch"], inputs), "result": (stream,)}

    def step(
        self,
        step: Step,
        batch: NoisyBatch,
        model: Model,
        loss_type: losses.LossType,
        huber_c: float,
        snr_gamma: float,
        target: str,
        **reference: Any,
    ) -> Tensor:
        wanted = wanted_output(step, model, batch, target, **reference)
        output = predict(model, batch)
        loss = losses.masked_mean(losses.elementwise(output, wanted, loss_type, huber_c), batch.mask)
        loss = loss * per_sample(losses.target_weight(batch, target), loss)
        if snr_gamma:
            weight = losses.min_snr_weight(batch.schedule, batch.timestep, snr_gamma)
            loss = loss * per_sample(weight, loss)
        return losses.weighted(loss, batch.weight)


def reference_cost(batch: Stream, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the trajectory target's fine path will cost, said before it is paid; raises ValueError if it cannot be."""
    plan = next(batch.constants(RolloutPlan), None)
    if plan is not None and plan.rollout == "none" and plan.active and inputs["target"] != "trajectory":
        raise ValueError(
            "rollout none leaves latents as they are, for the target trajectory alone: choose it, or fresh"
        )
    if inputs["target"] == "trajectory":
        if any(guide.active for guide in batch.constants(Guidance)):
            raise ValueError(
                "target trajectory leads a sampler without guidance: set guidance and sampling_guidance of Rollout to "
                "1 and 0, and reference_guidance here"
            )
        if inputs.get("reference_guidance", 1.0) != 1:
            check_guidance(inputs["model"].about, "reference_guidance")
    if inputs["target"] != "trajectory" or plan is None or not plan.active:
        return {}
    calls = reference_solver(inputs.get("reference_sampler", "auto"), inputs.get("reference_weights", "live")).calls
    longest = plan.longest(next(batch.constants(Schedule), None))
    coarse_steps = 1 if plan.rollout != "fresh" or noised_again(batch) else longest + 1
    most, guided = coarse_steps * inputs.get("reference_steps", 2) * calls, inputs.get("reference_guidance", 1.0) != 1
    twice = ", each of them twice for guidance" if guided else ""
    told = [f"the trajectory's reference takes up to {most} more forward passes per training step{twice}"]
    if guided and inputs.get("reference_weights", "live") != "frozen":
        told.append(
            "reference_guidance guides again what has learnt to be guided, and runs away: set reference_weights frozen"
        )
    return {"text": told}


def noised_again(batch: Stream) -> bool:
    """Whether copies are, which makes their path begin where they are."""
    return any(copies.levels for copies in batch.constants(Beside))


def wants_memory(inputs: dict[str, Any]) -> frozenset[str]:
    """Whether the rollout shall hand on what its sampler remembers."""
    own = inputs["target"] == "trajectory" and inputs.get("target_sampler") == "rollout"
    return frozenset({MEMORY} if own else ())


def reference_solver(name: str, weights: str) -> Solver:
    """The solver of the reference path; ``auto`` is unipc for live weights and heun for others."""
    return solver(("unipc" if weights == "live" else "heun") if name == "auto" else name)


def wanted_output(
    step: Step,
    model: Model,
    batch: NoisyBatch,
    target: str,
    reference_steps: int = 2,
    reference_sampler: str = "auto",
    reference_weights: str = "live",
    target_sampler: str = "euler",
    reference_guidance: float = 1.0,
) -> Tensor:
    """What the network shall put out at ``batch.x`` (B, ...), without gradient."""
    if target != "trajectory":
        return losses.target(batch, target)  # type: ignore[arg-type]
    if reference_weights == "ema" and step.run.averaged_weights is None and not step.run.schedule_free:
        raise ValueError("reference_weights is ema: set ema_decay in Optimizer Step, or choose live")
    guided: Network = model
    if reference_guidance != 1:
        rows = negative_rows(step, batch.negative, "reference_guidance")
        guided = Guidance(reference_guidance, negative=rows).of(model)
    with model.evaluating(), reference(step, model, batch, reference_weights):
        solve = reference_solver(reference_sampler, reference_weights)
        path = fine_path(guided, batch, reference_steps=reference_steps, solve=solve)
    if batch.listener is not None:
        batch.listener.landed(path.y)
    return target_onto(path, batch, batch.solve if target_sampler == "rollout" else None)


def reference(step: Step, model: Model, batch: NoisyBatch, weights: str) -> AbstractContextManager[None]:
    """The model has the weights of the reference inside."""
    if weights == "frozen" and (batch.fine is not None or bool(batch.rolled.any())):
        return other_weights(step.run, model.network, step.keep(lambda: teacher(step, model)).put_into)
    return averaged(step.run, model.network) if weights == "ema" else nullcontext()


def teacher(step: Step, model: Model) -> Teacher:
    """The weights as they are now; their running average, which knows more, if there is one."""
    with averaged(step.run, model.network):
        return Teacher(list(model.trained.values()))


class ReflexFlowLoss(StepNode):
    NODE_ID = "RolloutReflexFlowLoss"
    DISPLAY_NAME = "ReflexFlow Loss"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "For flow matching with rollouts: steers drifted latents back towards the clean image (anti-drift) and "
        "stresses what rolling out took away, mostly low frequencies (frequency compensation). Items that were not "
        "rolled out get the ordinary loss."
    )
    SEARCH_ALIASES = ("anti drift", "frequency compensation", "defar", "adr")
    RETURN_TYPES = (LOSS,)
    RETURN_NAMES = ("loss",)
    OUTPUT_TOOLTIPS = ("One loss per image of the batch.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": wire(BATCH, "What to train on, from Rollout."),
                "model": wire(MODEL, "The model that is being trained."),
                "reflexflow": choice(
                    ("auto", "enable", "disable"),
                    "auto",
                    "auto: on for flow matching with rollouts, otherwise the ordinary loss. enable: refuse to run "
                    "where it cannot work. disable: the ordinary loss.",
                ),
                "alpha": number(
                    1.0, 0.0, 100.0, 0.1, "Strength of the frequency compensation: how far its weights go from 1."
                ),
                "beta1": number(
                    10.0,
                    0.0,
                    1000.0,
                    0.1,
                    "Weight of the anti-drift term: the velocity shall point straight away from the clean image.",
                ),
                "beta2": number(1.0, 0.0, 1000.0, 0.1, "Weight of the frequency-compensated loss."),
                "objective": choice(
                    ("spec", "defar"),
                    "spec",
                    "spec: on the rolled-out latents of the Rollout node, one gradient pass. defar: drifts every item "
                    "itself by one big step and trains both ends; three forward passes.",
                ),
                "target": TARGET,
            },
            "optional": {
                "fc_norm": choice(
                    ("mean", "l1"),
                    "mean",
                    "mean: alpha means the same at every image size. l1: as SimpleTuner, where the compensation "
                    "vanishes at real image sizes.",
                    advanced=True,
                ),
                "min_sigma": number(
                    0.01,
                    0.0,
                    1.0,
                    0.01,
                    "No anti-drift below this noise level, where its direction is mostly rounding noise.",
                    advanced=True,
                ),
                "detach_drift": switch(
                    False,
                    "defar: do not send the gradient back through the drift step. Half the memory, a weaker lesson.",
                    advanced=True,
                ),
                **REFERENCE,
            },
            "hidden": UNIQUE_ID,
        }

    def build(self, unique_id: str, batch: Stream, reflexflow: str, **inputs: Any) -> dict[str, Any]:
        flow = all(schedule.is_flow_matching for schedule in batch.constants(Schedule))
        rolls = any(plan.active for plan in batch.constants(RolloutPlan))
        if reflexflow == "enable" and not flow:
            raise ValueError(
                "reflexflow is for flow matching: wire a flow-matching schedule, or choose auto or disable"
            )
        defar = inputs["objective"] == "defar"
        if defar and rolls and reflexflow != "disable":
            raise ValueError("objective defar makes its own drift: wire Noisy Batch straight into this loss")
        perturbed = (p for p in batch.constants(Perturbation) if p.mixflow or p.input_perturbation)
        if defar and any(perturbed) and reflexflow != "disable":
            raise ValueError(
                "objective defar does not look at what Noisy Batch has perturbed: set its mixflow and "
                "input_perturbation to 0, or choose objective spec"
            )
        active = reflexflow == "enable" or (reflexflow == "auto" and flow and (rolls or defar))
        if active and not defar and inputs["target"] == "trajectory" and inputs["beta1"]:
            raise ValueError(
                "target trajectory leads back to the model's own path and beta1 straight to the clean image: set beta1 "
                "to 0, or choose another target"
            )
        wants = frozenset({"clean_output"} if active and not defar and inputs["alpha"] else ()) | wants_memory(inputs)
        stream = self.stream(unique_id, {"batch": batch, "active": active, **inputs}, wants=wants)
        return {"ui": reference_cost(batch, inputs), "result": (stream,)}

    def step(
        self,
        step: Step,
        batch: NoisyBatch,
        model: Model,
        active: bool,
        objective: str,
        target: str,
        detach_drift: bool = False,
        **others: Any,
    ) -> Tensor:
        reference = {name: others[name] for name in REFERENCE if name in others}
        weights = {name: value for name, value in others.items() if name not in REFERENCE}
        if active and objective == "defar":
            generator = step.generator()
            loss, parts = reflexflow.defar(model, batch, generator=generator, detach_drift=detach_drift, **weights)
        else:
            wanted = wanted_output(step, model, batch, target, **reference)
            output = predict(model, batch)
            item_weight = losses.target_weight(batch, target)
            if not active:
                loss = losses.masked_mean(losses.elementwise(output, wanted), batch.mask)
                return losses.weighted(loss * per_sample(item_weight, loss), batch.weight)
            loss, parts = reflexflow.spec(output, wanted, batch, item_weight=item_weight, **weights)
        weighed = len(batch.x) if objective == "defar" else int(batch.rolled.sum())
        for name, value in parts.items():
            step.report(f"loss_{name}", value) if value.dim() else step.report(name, value, of=weighed)
        return losses.weighted(loss, batch.weight)

"""What a run will silently do, in words, before it is trained: the rules, and all of them for one run."""

from __future__ import annotations

from collections.abc import Iterable

from ..diffusion.rollout import RolloutPlan
from ..models.adapters.names import Names
from ..models.adapters.settings import AdapterSettings
from ..models.families import PRETRAINED
from ..training.optimizers import OptimizerSettings
from ..training.stream import Stream
from .preflight import number_of, some, steps_in_words


def run_in_words(
    loss: Stream, model: Stream, optimizer: OptimizerSettings, steps: int, accumulation: int = 1
) -> list[str]:
    """How often the run goes through its data, and what of its settings comes to nothing.

    ``loss`` and ``model`` are what Optimizer Step is wired to; nothing is loaded.
    """
    data = loss.data()
    epochs = [steps_in_words(data.about.count, data.inputs["batch_size"], steps, accumulation)] if data else []
    adapters = [part.inputs for part in model.walk() if isinstance(part.inputs.get("asked"), AdapterSettings)]
    return [
        *epochs,
        *(line for plan in loss.constants(RolloutPlan) for line in rollouts_in_words(plan, steps)),
        *schedule_in_words(optimizer, steps),
        *(line for inputs in adapters for line in targets_in_words(inputs["asked"], inputs["names"])),
    ]


def rollouts_in_words(plan: RolloutPlan, steps: int) -> list[str]:
    """Rollouts that never begin, and a ramp that the run does not get to the end of."""
    if never := plan.never_begins(steps):
        return [never]
    plan, last = plan.over(steps), steps - 1
    end = plan.start_step + plan.ramp_steps
    if plan.active and plan.ramp_steps and end > steps:
        return [
            f"the ramp of rollouts ends at step {end}, and the run has {number_of(steps, 'step')}: their probability "
            f"gets to {plan.probability_at(last):.2g} of {plan.prob_end:g}"
        ]
    return []


def schedule_in_words(settings: OptimizerSettings, steps: int) -> list[str]:
    """A warm-up that is longer than the run."""
    if settings.lr_schedule == "constant" or settings.warmup_steps < steps:
        return []
    return [
        f"the warm-up takes the whole run: warmup_steps {settings.warmup_steps}, and the run has "
        f"{number_of(steps, 'step')}; the learning rate gets to {settings.learning_rate:g} at its end"
    ]


def targets_in_words(settings: AdapterSettings, names: Names) -> list[str]:
    """Ends of names that fit no layer, and attention that a preset leaves out."""
    if isinstance(settings.targets, str):
        return []
    unfit = [end for end in settings.targets if not ends_some(end, names.layers)]
    lines = [f"targets: no layer is called {some(unfit)}"] if unfit and not is_preset(settings) else []
    if is_preset(settings):
        attention = [layer for layer in names.layers if is_attention(layer)]
        missed = [layer for layer in attention if not any(ends_some(end, [layer]) for end in settings.targets)]
        if missed:
            lines.append(f"targets: {len(missed)} of {len(attention)} attention layers get none: {some(missed)}")
    return lines


def is_preset(settings: AdapterSettings) -> bool:
    """Whether the targets are those of a family, and not ones that were typed in."""
    chosen = {*settings.targets}
    presets = (preset for kind in PRETRAINED.values() for preset in kind.lora_targets.values())
    return any(chosen >= {*preset} for preset in presets)


def is_attention(layer: str) -> bool:
    """Whether a layer is a projection of attention, by its name."""
    part, _, name = layer.removesuffix(".0").rpartition(".")
    attends = part.rpartition(".")[2].startswith("attn")
    return attends and (name.startswith(("to_", "add_")) or name == "qkv")


def ends_some(end: str, layers: Iterable[str]) -> bool:
    return any(layer == end or layer.endswith(f".{end}") for layer in layers)

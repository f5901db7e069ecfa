"""What is compared on few pictures: soar_lora.json, and what `--set` changes in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from run import PLAIN

GUIDANCE = 2.0
LOSS, REFLEX_LOSS = "RolloutDiffusionLoss", "RolloutReflexFlowLoss"
REFLEXFLOW = {
    "reflexflow": "auto",
    "alpha": 1.0,
    "beta1": 10.0,
    "beta2": 1.0,
    "objective": "spec",
    "target": "original",
}


@dataclass(frozen=True)
class Arm:
    """What is changed of the workflow; the nodes are Rollout and its loss."""

    words: str
    changes: tuple[str, ...] = ()
    rolls: bool = True
    reflexflow: bool = False
    mixed: bool = False
    """Whether every second batch is of the other classes."""


def arm(words: str, rollout: str, loss: str = "", reflexflow: bool = False) -> Arm:
    """Settings as ``name=value`` with spaces between them; what is not said of the Rollout is as it is without SOAR."""
    plain = "keep_base=false renoise=none guidance=1"
    changes = [f"Rollout.{each}" for each in f"{plain} {rollout}".split()]
    of_loss = f"{'ReflexFlowLoss' if reflexflow else 'DiffusionLoss'}."
    return Arm(words, (*changes, *(of_loss + each for each in loss.split())), reflexflow=reflexflow)


def single_steps(size: int, start: float = 0.7) -> str:
    """The Rollout's settings: one step of this length on a quarter of the items, from that share of the training on."""
    return f"start={start} max_step_offset=1 probability=0.5 step_size={size}"


def also(arm: Arm, words: str, change: str) -> Arm:
    return replace(arm, words=f"{arm.words}; {words}", changes=(*arm.changes, change))


SPEC = "sampler=unipc max_step_offset=10 probability=1 step_size=1"
SOAR = (
    "keep_base=true renoise=same_noise renoise_levels=1 max_step_offset=1 probability=1 step_size=25 copies_weight=0.25"
)
REFLEX = "sampler=unipc max_step_offset=5 probability=0.25 step_size=20 start=0.25 ramp=0.25 prob_end=0.25"
REFLEX_SETTINGS = "reflexflow=auto alpha=1 beta1=1 beta2=1 objective=spec target=clean"
WHOLE = "rollout=persistent from_noise=true max_step_offset=7 step_size=125"
MOST = f"start=0.75 {WHOLE} probability=0.9"
CHAINS = "`trajectory`, persistent chains on nine tenths of the places"
FROZEN = "target=trajectory reference_weights=frozen reference_sampler=heun reference_steps=1"
ARMS = {
    PLAIN: Arm("teacher forcing", rolls=False),
    "prior": Arm("teacher forcing, every second batch of the other classes", rolls=False, mixed=True),
    "spec": arm("Rollout by its documented defaults", SPEC, "target=original"),
    "reflexflow": arm("Rollout and ReflexFlow by their documented defaults", SPEC, reflexflow=True),
    "recipe": arm(
        "the recipe: `trajectory`, single steps of 300, from 70% on",
        single_steps(300),
        FROZEN,
    ),
    "recipe_100": arm(
        "`trajectory`, single steps of 100, from 70% on",
        single_steps(100),
        FROZEN,
    ),
    "recipe_100_late": arm(
        "`trajectory`, single steps of 100, from 85% on: the LoRA workflows",
        single_steps(100, start=0.85),
        FROZEN,
    ),
    "recipe_100_ema": arm(
        "`trajectory`, single steps of 100, averaged reference, from 70% on",
        single_steps(100),
        FROZEN.replace("frozen", "ema"),
    ),
    "recipe_50": arm(
        "`trajectory`, single steps of 50, from 70% on",
        single_steps(50),
        FROZEN,
    ),
    "beside": arm(
        "`trajectory` on copies beside their items, single steps of 200, from 75% on",
        "keep_base=true copies_weight=1 start=0.75 max_step_offset=1 probability=0.5 step_size=200",
        FROZEN,
    ),
    "reflexflow_clean": arm(
        "Rollout of up to 5 steps of 20, ReflexFlow with target `clean`: `lora_sd3.json`",
        REFLEX,
        REFLEX_SETTINGS,
        reflexflow=True,
    ),
    "chains": arm(
        "`trajectory`, persistent chains down 8 levels, from 70% on", f"start=0.7 {WHOLE} probability=0.25", FROZEN
    ),
    "chains_most": arm(f"{CHAINS}, from 75% on", MOST, FROZEN),
    "chains_guided": arm(
        f"{CHAINS}, reference with guidance {GUIDANCE:g} (`few_steps_lora.json`)",
        MOST,
        f"{FROZEN} reference_guidance={GUIDANCE}",
    ),
    "soar": arm("SOAR without guidance", SOAR, "target=clean"),
    "soar_guided": arm(f"SOAR with guidance {GUIDANCE:g}", f"{SOAR} guidance={GUIDANCE}", "target=clean"),
}
ARMS |= {
    f"{name}_averaged": also(ARMS[name], "averaged weights", "OptimizerStep.ema_decay=0.99")
    for name in (
        PLAIN,
        "recipe",
        "recipe_100",
        "recipe_100_late",
        "recipe_100_ema",
        "recipe_50",
        "beside",
        "reflexflow_clean",
        "chains_most",
        "chains_guided",
        "soar_guided",
    )
} | {
    f"{name}_decayed": also(ARMS[name], "the learning rate falls (cosine)", "Optimizer.lr_schedule=cosine")
    for name in (PLAIN, "recipe")
}
ARMS["recipe_both"] = also(ARMS["recipe_averaged"], "the learning rate falls (cosine)", "Optimizer.lr_schedule=cosine")

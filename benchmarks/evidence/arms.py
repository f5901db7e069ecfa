"""What is compared: each arm is a shipped workflow and what `--set` changes in it."""

from __future__ import annotations

from dataclasses import dataclass

REFLOW, TRAJECTORY, QUICKSTART = "reflow_digits.json", "rollout_trajectory_digits.json", "quickstart_digits.json"


@dataclass(frozen=True)
class Arm:
    """One way to spend the last part of a training."""

    words: str
    changes: tuple[str, ...] = ()
    workflow: str = TRAJECTORY
    rolls: bool = True
    """Whether the Rollout node is in the graph; it is bypassed otherwise."""


def rollout(words: str, *changes: str, target: str = "original", workflow: str = TRAJECTORY) -> Arm:
    """An arm that rolls out from the first step of its own; what names no node is Rollout's."""
    loss = "DiffusionLoss" if workflow == TRAJECTORY else "ReflexFlowLoss"
    all_changes = ("start_step=0", "ramp_steps=0", "sampler=euler", f"{loss}.target={target}", *changes)
    return Arm(
        words, tuple(change if "." in change.split("=")[0] else f"Rollout.{change}" for change in all_changes), workflow
    )


def trajectory(words: str, weights: str, *changes: str, sampler: str = "heun") -> Arm:
    """With one step of that sampler and those weights for each coarse one as the reference."""
    reference = (f"reference_weights={weights}", f"reference_sampler={sampler}", "reference_steps=1")
    return rollout(words, *(f"DiffusionLoss.{change}" for change in reference), *changes, target="trajectory")


SINGLE = ("max_step_offset=1", "probability=0.5")
"""A length of 0 or 1 is drawn: half of what is chosen is rolled out, a quarter of the items."""
STILL = ("rollout=none", "probability=0.25", "max_step_offset=7")
WHOLE = ("rollout=persistent", "from_noise=true", "step_size=125", "max_step_offset=7")
SHORT = ("max_step_offset=5", "probability=0.3", "step_size=20")
LASTING = ("rollout=persistent", "max_step_offset=5", "probability=0.25", "step_size=20")
SPEC = ("sampler=unipc", "max_step_offset=10", "probability=1", "step_size=1", "ReflexFlowLoss.beta1=10")
SOAR = (
    "max_step_offset=1",
    "probability=0.5",
    "step_size=25",
    "keep_base=true",
    "renoise=same_noise",
    "renoise_levels=1",
)

ARMS = {
    "teacher_forcing": Arm("teacher forcing", rolls=False),
    "fresh_125": trajectory("`trajectory`, single steps of 125, frozen reference", "frozen", *SINGLE, "step_size=125"),
    "fresh_200": trajectory("`trajectory`, single steps of 200, frozen reference", "frozen", *SINGLE, "step_size=200"),
    "fresh_300": trajectory(
        "the recipe: `trajectory`, single steps of 300, frozen reference", "frozen", *SINGLE, "step_size=300"
    ),
    "fresh_400": trajectory("`trajectory`, single steps of 400, frozen reference", "frozen", *SINGLE, "step_size=400"),
    "fresh_400_unipc": trajectory(
        "the same, reference by one UniPC step", "frozen", *SINGLE, "step_size=400", sampler="unipc"
    ),
    "fresh_200_ema": trajectory(
        "`trajectory`, single steps of 200, averaged reference", "ema", *SINGLE, "step_size=200"
    ),
    "still_300": trajectory("`trajectory` without a rollout, steps of 300", "frozen", *STILL, "step_size=300"),
    "still_8_200": trajectory(
        "the same from the levels of 8 steps, steps of 200", "frozen", *STILL, "from_noise=true", "step_size=200"
    ),
    "still_8_300": trajectory(
        "the same from the levels of 8 steps, steps of 300", "frozen", *STILL, "from_noise=true", "step_size=300"
    ),
    "chains": trajectory("`trajectory`, chains down 8 levels, frozen reference", "frozen", *WHOLE, "probability=0.25"),
    "fresh_300_half": trajectory(
        "the recipe on half of the items", "frozen", *SINGLE, "probability=1", "step_size=300"
    ),
    "fresh_300_half_late": trajectory(
        "the recipe on half of the items, from 85% on",
        "frozen",
        *SINGLE,
        "probability=1",
        "step_size=300",
        "start=0.85",
    ),
    "chains_most": trajectory(
        "`trajectory`, chains down 8 levels on nine tenths of the items", "frozen", *WHOLE, "probability=0.9"
    ),
    "chains_most_late": trajectory("such chains from 85% on", "frozen", *WHOLE, "probability=0.9", "start=0.85"),
    "chains_ema": trajectory("chains, averaged reference", "ema", *WHOLE, "probability=0.25"),
    "reflow": Arm("Reflow", ("Reflow.start=0",), REFLOW),
    "spec": rollout("Rollout and ReflexFlow by their documented defaults", *SPEC, workflow=QUICKSTART),
    "original": rollout("`original`, up to 5 steps of 20", *SHORT),
    "original_persistent": rollout("`original`, persistent", *LASTING),
    "clean": rollout("`clean`, up to 5 steps of 20", *SHORT, target="clean"),
    "clean_persistent": rollout("`clean`, persistent", *LASTING, target="clean"),
    "anti_drift": rollout(
        "ReflexFlow, anti-drift alone", *SHORT, "ReflexFlowLoss.beta1=1", "ReflexFlowLoss.alpha=0", workflow=QUICKSTART
    ),
    "frequency": rollout(
        "ReflexFlow, frequency compensation alone", *SHORT, "ReflexFlowLoss.beta1=0", workflow=QUICKSTART
    ),
    "defar": Arm(
        "ReflexFlow `defar`",
        tuple(f"ReflexFlowLoss.{change}" for change in ("reflexflow=enable", "objective=defar", "target=original")),
        QUICKSTART,
        rolls=False,
    ),
    "soar": rollout("SOAR without guidance", *SOAR, target="clean"),
    "mixflow": Arm("MixFlow 0.8", ("NoisyBatch.mixflow=0.8",), rolls=False),
    "input_perturbation": Arm("input perturbation 0.1", ("NoisyBatch.input_perturbation=0.1",), rolls=False),
}

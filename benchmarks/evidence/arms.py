"""What is compared: each arm is a shipped workflow and what `--set` changes in it."""

from __future__ import annotations

from dataclasses import dataclass

REFLOW = "reflow_digits.json"
TRAJECTORY, QUICKSTART = "rollout_trajectory_digits.json", "quickstart_digits.json"


@dataclass(frozen=True)
class Arm:
    """One way to spend the time of a tuning."""

    words: str
    changes: tuple[str, ...] = ()
    workflow: str = TRAJECTORY
    price: float = 1.0
    """Forwards of a step over those of a teacher-forced one: it trains as many fewer steps. What it really cost is
    measured, and compared with teacher forcing of just that cost."""
    rolls: bool = False
    """Whether the Rollout node is in the graph; it is bypassed otherwise."""


def rollout(words: str, price: float, *changes: str, loss: str = "original", workflow: str = TRAJECTORY) -> Arm:
    """An arm that rolls out, from the first step of the tuning on."""
    kind = "DiffusionLoss" if workflow == TRAJECTORY else "ReflexFlowLoss"
    begin = ("Rollout.start_step=0", "Rollout.ramp_steps=0", f"{kind}.target={loss}")
    return Arm(
        words,
        (*begin, *(f"Rollout.{change}" if "." not in change.split("=")[0] else change for change in changes)),
        workflow,
        price,
        True,
    )


PLAIN = ("sampler=euler", "max_step_offset=5", "probability=0.3", "step_size=20")
HEUN = (
    "DiffusionLoss.reference_weights=frozen",
    "DiffusionLoss.reference_sampler=heun",
    "DiffusionLoss.reference_steps=1",
)
LATE = ("start=0.5",)
"""The reference is what the model has learnt by then."""
CHAINS = (*LATE, "rollout=persistent", "from_noise=true", "sampler=euler", *HEUN)
EIGHT = ("step_size=125", "max_step_offset=7")
SPEC = ("sampler=unipc", "max_step_offset=10", "probability=1", "step_size=1")
SOAR = (
    "sampler=euler",
    "max_step_offset=1",
    "probability=0.5",
    "step_size=25",
    "keep_base=true",
    "renoise=same_noise",
    "renoise_levels=1",
)
OWN = ("DiffusionLoss.target_sampler=rollout", "order=2")

ARMS = {
    "teacher_forcing": Arm("teacher forcing"),
    "teacher_forcing_longer": Arm("teacher forcing, half as long again", price=2 / 3),
    "chains_8": rollout(
        "`trajectory`, chains down 8 levels, a quarter", 1.08, "probability=0.25", *CHAINS, *EIGHT, loss="trajectory"
    ),
    "chains_8_half": rollout(
        "the same, half of the items", 1.17, "probability=0.5", *CHAINS, *EIGHT, loss="trajectory"
    ),
    "chains_8_half_ema": rollout(
        "half of the items from the beginning, and the running average as the reference",
        1.33,
        "probability=0.5",
        *CHAINS,
        *EIGHT,
        "start=0",
        "DiffusionLoss.reference_weights=ema",
        loss="trajectory",
    ),
    "chains_8_dpm": rollout(
        "chains down 8 levels by DPM-Solver++, its own target",
        1.08,
        "probability=0.25",
        *CHAINS,
        *EIGHT,
        "sampler=dpm",
        *OWN,
        loss="trajectory",
    ),
    "fresh_8": rollout(
        "`trajectory`, fresh single steps of 125",
        1.21,
        *LATE,
        "sampler=euler",
        "max_step_offset=1",
        "probability=0.5",
        "step_size=125",
        *HEUN,
        loss="trajectory",
    ),
    "spec": rollout(
        "Rollout and ReflexFlow by SPEC's defaults",
        3.0,
        *SPEC,
        "ReflexFlowLoss.beta1=10",
        loss="original",
        workflow=QUICKSTART,
    ),
    "original": rollout("`original`, up to 5 steps of 20", 1.25, *PLAIN),
    "original_persistent": rollout("`original`, persistent", 1.0, *PLAIN, "rollout=persistent", "probability=0.25"),
    "clean": rollout("`clean`, up to 5 steps of 20", 1.25, *PLAIN, loss="clean"),
    "clean_persistent": rollout(
        "`clean`, persistent", 1.0, *PLAIN, "rollout=persistent", "probability=0.25", loss="clean"
    ),
    "anti_drift": rollout(
        "ReflexFlow, anti-drift alone",
        1.25,
        *PLAIN,
        "ReflexFlowLoss.beta1=1",
        "ReflexFlowLoss.alpha=0",
        workflow=QUICKSTART,
    ),
    "frequency": rollout(
        "ReflexFlow, frequency compensation alone", 1.35, *PLAIN, "ReflexFlowLoss.beta1=0", workflow=QUICKSTART
    ),
    "defar": Arm(
        "ReflexFlow `defar`",
        ("ReflexFlowLoss.reflexflow=enable", "ReflexFlowLoss.objective=defar", "ReflexFlowLoss.target=original"),
        QUICKSTART,
        2.6,
    ),
    "soar": rollout("SOAR without guidance", 1.67, *SOAR, loss="clean"),
    "mixflow": Arm("MixFlow 0.8", ("NoisyBatch.mixflow=0.8",)),
    "input_perturbation": Arm("input perturbation 0.1", ("NoisyBatch.input_perturbation=0.1",)),
    "reflow": Arm("Reflow in the last half of the tuning", ("Reflow.start=0.5",), REFLOW, 1.2, True),
    "reflow_early": Arm("Reflow in its last 70%", ("Reflow.start=0.3",), REFLOW, 1.2, True),
}

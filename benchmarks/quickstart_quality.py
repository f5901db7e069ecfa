"""Are the quickstart's samples digits? A classifier of real digits is asked.

Bound: at least 85% of 256 samples are given, with a probability of 0.9 or more, the class that was asked for.

    python benchmarks/quickstart_quality.py [--model FOLDER]     without a folder the quickstart is trained first
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from comfyui_rollout.__main__ import main as command_line
from comfyui_rollout.diffusion.solvers import solver
from comfyui_rollout.models.saving import load_model
from comfyui_rollout.models.schedule_file import load_schedule
from comfyui_rollout.runs.sampling import sample
from digit_judge import DigitJudge
from report import conclude, table

WORKFLOW = Path(__file__).parents[1] / "workflows" / "quickstart_digits.json"
COUNT = 256
CONFIDENT = 0.9


def trained_quickstart(output: Path) -> Path:
    """Train the shipped workflow as it is; returns the model's folder."""
    if command_line(["run", str(WORKFLOW), "--output", str(output)]):
        raise SystemExit("the quickstart did not train")
    return next((output / "rollout").glob("quickstart_digits_*")) / "model"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path)
    given = options.parse_args().model
    judge = DigitJudge()
    with tempfile.TemporaryDirectory() as output:
        folder = given or trained_quickstart(Path(output))
        model, schedule = load_model(folder), load_schedule(folder)
    assert schedule is not None
    labels = torch.arange(COUNT) % 10
    rows, figures = [], {"classifier_accuracy": judge.accuracy}
    for steps in (5, 10, 20, 50):
        latents = sample(
            model,
            schedule,
            solver("unipc"),
            count=COUNT,
            steps=steps,
            conditioning={"label": labels},
            generator=torch.Generator().manual_seed(0),
        )
        pixels = latents.flatten(1).double().numpy()
        seen = judge.probabilities(pixels)
        right = seen.argmax(1) == labels.numpy()
        confident = float((right & (seen.max(1) >= CONFIDENT)).mean())
        rows.append([steps, float(right.mean()), confident, judge.frechet_distance(pixels)])
        figures[f"confident_at_{steps}"] = confident
    table(["steps", "right class", "confidently", "Frechet distance"], rows)
    return conclude(figures, at_most={}, at_least={"confident_at_20": 0.85, "classifier_accuracy": 0.95})


if __name__ == "__main__":
    sys.exit(main())

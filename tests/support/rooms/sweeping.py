"""A sweep of a workflow of nothing, and the folders that its runs would leave."""

import json
import sys

from comfyui_rollout.sweeps.sweep import Sweep
from PIL import Image

WORKFLOW = {"nodes": [], "links": []}

GRID = [["A.b=1"], ["A.b=2"], ["A.b=3"]]


def planned(output, chosen=GRID, workflow=WORKFLOW, common=("S.t=0",)):
    return Sweep.planned(output, "tries", workflow, "7", common, chosen)


def stand_in(monkeypatch, code):
    """A short program in place of the training; it writes the name of its run into its log."""
    program = [sys.executable, "-c", code]
    monkeypatch.setattr(Sweep, "command", lambda self, number, device: [*program, self.run_name(number), device])


def left(sweep, number, status="finished", losses=(3.0, 2.0), take=1, state=False, **more):
    """The folder that a run of this variant would leave."""
    run = sweep.output / "rollout" / f"{sweep.run_name(number)}_{take:05d}"
    (run / "samples").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": status, "seconds": 4.2}))
    rows = [{"step": step, "loss": loss, **more} for step, loss in enumerate(losses)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (1, 2):
        Image.new("RGB", (40, 30), (10 * number, 0, 100 * step)).save(run / "samples" / f"9_step_{step:06d}.png")
    if state:
        (run / "state").mkdir()
    return run

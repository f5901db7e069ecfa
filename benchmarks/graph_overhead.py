"""What the graph costs: a step pulled through streams against the same mathematics written out in one function.

Both train the quickstart's model with the same seeds, in one process, step by step in turn; their losses must be equal
to the bit. Bound: the graph's step takes at most 3% longer (median of the ratios of neighbouring steps).
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from comfyui_rollout.data.data import Digits, ItemGenerators, items_of_batch
from comfyui_rollout.diffusion import losses, reflexflow, seeds
from comfyui_rollout.diffusion.rollout import RolloutPlan, noisy_batch, roll_out
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import ask, solver
from comfyui_rollout.models.families import UNet
from comfyui_rollout.nodes import NODE_CLASS_MAPPINGS as NODES
from comfyui_rollout.training.loop import Trainer
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run
from report import conclude, table

STEPS, BATCH, SEED = 60, 64, 0
PLAN = RolloutPlan(max_step_offset=5, probability=0.5, step_size=20.0)
SETTINGS = OptimizerSettings(learning_rate=2e-3)


def graph_trainer() -> Trainer:
    """The quickstart's step as streams, as the nodes build it."""
    (data,) = NODES["RolloutDigitsDataset"]().build("data", BATCH, 8)["result"]
    (schedule,) = NODES["RolloutFlowMatchingSchedule"]().build("uniform")
    (model,) = NODES["RolloutNewModel"]().build("model", data, "unet", 32, 2, True)
    (noisy,) = NODES["RolloutNoisyBatch"]().build("noisy", dataset=data, schedule=schedule)
    options = {"max_step_offset": 5, "probability": 0.5, "step_size": 20.0}
    (rolled,) = NODES["Rollout"]().build("rollout", noisy, model, "unipc", 2, **options)["result"]
    weights = {"alpha": 1.0, "beta1": 1.0, "beta2": 1.0, "objective": "spec", "target": "clean"}
    (loss,) = NODES["RolloutReflexFlowLoss"]().build("loss", rolled, "auto", model=model, **weights)["result"]
    run = Run(loss, seed=SEED)
    return Trainer(run, loss, run.value(model).network, SETTINGS, STEPS)


class HandWritten:
    """The same step without any graph."""

    def __init__(self) -> None:
        with seeds.global_seed(seeds.derive(SEED, "model", "weights")):
            self.model = UNet.create(channels=1, size=8, classes=10, width=32, depth=2)
        self.data, self.schedule, self.solve = Digits(), FlowMatching(), solver("unipc")
        self.parameters = list(self.model.network.parameters())
        (self.optimizer,) = SETTINGS.optimizers(self.model.network)
        self.scheduler = SETTINGS.scheduler(self.optimizer, STEPS)

    def update(self, step: int) -> torch.Tensor:
        items = items_of_batch(self.data.info.count, BATCH, step, SEED, "data")
        clean = self.data.batch(items, ItemGenerators(SEED, "data", step * BATCH, BATCH))
        random = seeds.generator(SEED, "noisy", step)
        timestep = self.schedule.sample_timesteps(BATCH, random)
        noise = torch.randn(clean.latents.shape, generator=random)
        batch = noisy_batch(clean.latents, noise, timestep, self.schedule, clean.conditioning)
        draw = PLAN.draw(timestep, self.schedule, step, seeds.generator(SEED, "rollout", step))
        self.model.network.eval()
        batch = roll_out(self.model, batch, draw, self.solve, want_clean_output=True)
        self.model.network.train()
        wanted = losses.target(batch, "clean")
        output = ask(self.model, batch.x, batch.timestep, batch.conditioning)
        share = losses.target_weight(batch, "clean")
        loss, _ = reflexflow.spec(output, wanted, batch, alpha=1.0, beta1=1.0, beta2=1.0, item_weight=share)
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        return loss.detach().mean()


def main() -> int:
    graph, hand = graph_trainer(), HandWritten()
    ratios, seconds, different = [], [0.0, 0.0], 0
    for number in range(STEPS):
        begun = time.perf_counter()
        by_hand = hand.update(number)
        between = time.perf_counter()
        by_graph = graph.update(number).metrics["loss"]
        ended = time.perf_counter()
        different += float(by_hand) != float(by_graph)
        if number >= 5:  # the first steps fill caches
            ratios.append((ended - between) / (between - begun))
            seconds[0] += between - begun
            seconds[1] += ended - between
    rows = [["hand-written", 1000 * seconds[0] / len(ratios)], ["graph", 1000 * seconds[1] / len(ratios)]]
    table(["step", "milliseconds"], rows)
    figures = {"graph_over_hand_written": statistics.median(ratios), "different_losses": float(different)}
    return conclude(figures, at_most={"graph_over_hand_written": 1.03, "different_losses": 0}, at_least={})


if __name__ == "__main__":
    sys.exit(main())

"""The optimizer, and the node that trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..diffusion.schedules import Schedule
from ..training.checkpoint import save_model
from ..training.data import DatasetInfo
from ..training.host import choose_device, current_host
from ..training.loop import Metrics, averaged, train, training_mode
from ..training.models import Model
from ..training.optimizers import OptimizerSettings
from ..training.recorder import Recorder
from ..training.run_folder import RunFolder, versions
from ..training.stream import Run, Step, StepError, Stream
from .base import LOSS, MODEL, OPTIMIZER, RUN, SAMPLES, Node, shown, workflow_metadata
from .inputs import UNIQUE_ID, choice, integer, line, number, seed, wire
from .model import ModelInfo, trained_model

READ_METRICS_EVERY = 10
"""Steps between two readings of the losses: each makes the program wait for the device once."""


class Optimizer(Node):
    NODE_ID = "RolloutOptimizer"
    DISPLAY_NAME = "Optimizer"
    DESCRIPTION = "How the weights are changed, and how the learning rate goes over the training."
    SEARCH_ALIASES = ("adamw", "adafactor", "sgd", "muon", "learning rate", "lr scheduler")
    RETURN_TYPES = (OPTIMIZER,)
    RETURN_NAMES = ("optimizer",)
    OUTPUT_TOOLTIPS = ("Settings for Optimizer Step.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "optimizer": choice(
                    ("adamw", "adafactor", "sgd", "muon"),
                    "adamw",
                    "adamw: the safe choice. adafactor: least memory. sgd: plain. muon: for matrices, with adamw for "
                    "all other weights.",
                ),
                "learning_rate": number(
                    1e-4,
                    0.0,
                    10.0,
                    1e-5,
                    "The size of a step. 1e-3 for small models from scratch, 1e-4 for LoRA, 1e-5 for full fine-tuning.",
                ),
                "lr_schedule": choice(
                    ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
                    "constant",
                    "How the learning rate goes over the training. cosine ends near zero: the cleanest images.",
                ),
                "warmup_steps": integer(
                    0, 0, 1_000_000, "Steps in which the learning rate rises from zero. Not used by constant."
                ),
                "weight_decay": number(0.01, 0.0, 1.0, 0.001, "Pulls weights towards zero."),
                "num_cycles": integer(3, 1, 1000, "cosine_with_restarts: how often it starts again.", advanced=True),
                "beta1": number(
                    0.9,
                    0.0,
                    0.9999,
                    0.01,
                    "Memory of past gradients: adamw's first beta, momentum for sgd and muon.",
                    advanced=True,
                ),
                "beta2": number(
                    0.999,
                    0.0,
                    0.99999,
                    0.001,
                    "adamw's second beta: memory of past squared gradients.",
                    advanced=True,
                ),
            }
        }

    def build(self, optimizer: str, **options: Any) -> tuple[OptimizerSettings]:
        return (OptimizerSettings(name=optimizer, **options),)  # type: ignore[arg-type]


class OptimizerStep(Node):
    NODE_ID = "RolloutOptimizerStep"
    DISPLAY_NAME = "Optimizer Step"
    DESCRIPTION = (
        "Trains: pulls the loss once per step, goes back through it and changes the weights. Leaves a folder with the "
        "workflow, metrics, curves, sample images, rollouts and the trained model."
    )
    SEARCH_ALIASES = ("train", "trainer", "training loop", "ema", "mixed precision")
    RETURN_TYPES = (MODEL, RUN)
    RETURN_NAMES = ("model", "run")
    OUTPUT_TOOLTIPS = ("The trained model (its averaged weights, if EMA is on).", "The run, for Plot Metrics.")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "loss": wire(LOSS, "What is made smaller."),
                "model": wire(MODEL, "The model that is trained, the same that the loss uses."),
                "optimizer": wire(OPTIMIZER, "How the weights are changed."),
                "steps": integer(1000, 1, 10_000_000, "Optimizer updates in all."),
                "seed": seed("Fixes everything random: on a CPU, the same seed gives the same weights, bit for bit."),
                "accumulation": integer(
                    1, 1, 4096, "Batches per update: a larger batch than fits into memory, at the price of time."
                ),
                "clip_norm": number(
                    1.0, 0.0, 1000.0, 0.1, "Gradients larger than this are scaled down. 0 turns it off."
                ),
                "ema_decay": number(
                    0.0,
                    0.0,
                    0.99999,
                    0.001,
                    "Keep a running average of the weights and use it for samples and the saved model: 0.999 is usual, "
                    "0 turns it off.",
                ),
                "precision": choice(
                    ("fp32", "bf16", "fp16"),
                    "fp32",
                    "Number format of the forward pass. bf16 is fastest on recent GPUs; weights stay in fp32.",
                ),
                "preview_every": integer(
                    50, 0, 1_000_000, "Steps between two looks at what passes through the nodes. 0 = never."
                ),
                "sample_every": integer(
                    250, 0, 1_000_000, "Steps between two rounds of sample images. 0 = only at the end."
                ),
                "checkpoint_every": integer(
                    0, 0, 1_000_000, "Steps between two saved copies of the model. 0 = only at the end."
                ),
                "run_name": line(
                    "run", "Name of the run's folder, below rollout in the output folder. A number is added."
                ),
            },
            "optional": {"samples": wire(SAMPLES, "Sample Images, to see images while it trains.")},
            "hidden": {**UNIQUE_ID, "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, run_name: str) -> bool | str:
        if run_name is not None and (not run_name.strip() or Path(run_name).name != run_name):
            return f"{run_name!r} must be a plain folder name, without slashes"
        return True

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> float:
        return float("nan")  # a run is never a repetition: queueing again trains again

    def build(
        self,
        loss: Stream,
        model: Stream,
        optimizer: OptimizerSettings,
        unique_id: str,
        samples: Stream | None = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        check_that_they_fit(loss, model)
        host = current_host()
        device = choose_device(host.device)
        facts = {"seed": options["seed"], "steps": options["steps"], "device": device, "versions": versions()}
        folder = RunFolder.create(host.output_folder / "rollout", options.pop("run_name"), facts)
        folder.write_json("prompt.json", prompt)
        folder.write_json("workflow.json", (extra_pnginfo or {}).get("workflow", prompt))
        streams = [loss, model, *([samples] if samples else [])]
        run = Run(*streams, seed=options.pop("seed"), device=device, host=Recorder(host, folder))
        session = Session(run, folder, str(unique_id), loss, model, samples, workflow_metadata(prompt, extra_pnginfo))
        with folder_status(folder):
            session.train(optimizer, **options)
        for part in (part for stream in streams for part in stream.walk()):
            host.finish(part.node_id)
        trained = trained_model(model, folder.model_folder, str(unique_id), self.DISPLAY_NAME)
        text = [f"the run's folder is {folder.folder}", session.shares_of_time()]
        return {"ui": {"text": text, **shown(host, *session.pictures())}, "result": (trained, folder.folder)}


def check_that_they_fit(loss: Stream, model: Stream) -> None:
    """Raises ValueError where the wires cannot be right, before anything is loaded."""
    if model not in loss.walk():
        raise ValueError("model: wire the same model into the loss and into Optimizer Step")
    info: ModelInfo = model.about
    for stream in loss.walk():
        data = stream.about
        if not isinstance(data, DatasetInfo):
            continue
        check_family(data, info, f"node {stream.node_id} ({stream.title})")
        if data.channels != info.channels or (info.size and data.size != info.size):
            raise ValueError(
                f"the model is made for {info.channels} x {info.size} x {info.size} images, and node {stream.node_id} "
                f"({stream.title}) gives {data.channels} x {data.size} x {data.size}"
            )
        if info.classes and not 0 < len(data.classes) <= info.classes:
            raise ValueError(
                f"the model knows {info.classes} classes, and node {stream.node_id} ({stream.title}) has "
                f"{len(data.classes)}"
            )


def check_family(data: DatasetInfo, info: ModelInfo, where: str) -> None:
    """Raises ValueError where a data set was not encoded by the model that is trained on it."""
    wanted = info.pretrained.info.family if info.pretrained else ""
    if data.family == wanted:
        return
    if not wanted:
        raise ValueError(f"{where} is encoded for a pretrained model ({data.family}), and this model is a new one")
    made = f"encoded for another model ({data.family})" if data.family else "made of pixels"
    raise ValueError(f"{where} is {made}: put an Encode Dataset node behind it, with the pipeline of Load Pretrained")


@contextmanager
def folder_status(folder: RunFolder) -> Iterator[None]:
    """The run's folder says how it ended, whatever happens."""
    begun = time.perf_counter()
    try:
        yield
    except Exception as error:
        folder.update(status="failed", message=str(error), seconds=round(time.perf_counter() - begun, 2))
        raise
    except BaseException as stop:  # ComfyUI's interrupt and ours are both of this kind
        message = str(stop) or "stopped by the user"
        folder.update(status="interrupted", message=message, seconds=round(time.perf_counter() - begun, 2))
        raise
    folder.update(status="finished", seconds=round(time.perf_counter() - begun, 2))


class Session:
    """One training run of Optimizer Step: the loop, and what happens once in a while."""

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        node_id: str,
        loss: Stream,
        model: Stream,
        samples: Stream | None,
        metadata: dict[str, str],
    ) -> None:
        self.run, self.folder, self.node_id = run, folder, node_id
        self.loss, self.model, self.samples, self.metadata = loss, model, samples, metadata
        self.schedule = next(loss.constants(Schedule), None)
        self.metrics = Metrics(run)
        self.diverged_at: int | None = None
        """The first step whose loss was not a finite number."""

    def train(
        self,
        settings: OptimizerSettings,
        *,
        steps: int,
        preview_every: int,
        sample_every: int,
        checkpoint_every: int,
        **options: Any,
    ) -> None:
        """Train to the end; when stopped or failing, what was learnt so far is saved first."""
        reached = 0
        working = [*(stream.node_id for stream in self.loss.walk()), self.node_id]
        updates = train(
            self.loss, self.model, settings, steps=steps, run=self.run, watch_every=preview_every, node_id=self.node_id,
            **options,
        )  # fmt: skip
        try:
            self.run.host.check_interrupted()
            for step in updates:
                reached = step.update + 1
                self.metrics.add(step)
                for node_id in working:
                    self.run.host.progress(node_id, reached, steps)
                checkpoint = checkpoint_every and reached % checkpoint_every == 0 and reached < steps
                if checkpoint or reached % READ_METRICS_EVERY == 0:
                    self.report()
                    self.check_loss()
                if sample_every and reached % sample_every == 0 and reached < steps:
                    self.sample(reached)
                if checkpoint:
                    self.save(self.folder.folder / "checkpoints" / f"step_{reached:06d}")
                self.run.host.check_interrupted()
            self.report()
            self.check_loss()
            self.sample(steps)
        except BaseException:
            try:
                self.conclude(reached)
            except Exception:  # a full disk must not hide why the run ended
                logging.exception("the run's last state could not be saved")
            raise
        self.conclude(steps)

    def shares_of_time(self) -> str:
        """Which node took how much of the step, the largest first."""
        streams = [*self.loss.walk(), *(self.samples.walk() if self.samples else ())]
        titles = {stream.node_id: stream.title for stream in streams}
        total = sum(self.metrics.seconds.values()) or 1.0
        shares = sorted(((seconds / total, name) for name, seconds in self.metrics.seconds.items()), reverse=True)
        named = [(share, titles.get(name) or name.removeprefix(f"{self.node_id}.")) for share, name in shares]
        return "time: " + ", ".join(f"{name} {share:.0%}" for share, name in named if share >= 0.005)

    def conclude(self, reached: int) -> None:
        """The last metrics, the curve, and the model, if there was a step at all and it has not diverged."""
        self.folder.update(steps_done=reached)
        if reached:
            self.report()
            self.folder.update(shares_of_time=self.shares_of_time())
            self.folder.plot()
        if reached and self.diverged_at is None:
            self.save(self.folder.model_folder)

    def report(self) -> None:
        rows = self.metrics.read()
        if rows:
            self.run.host.metrics(self.node_id, rows)
        for row in rows:
            if row["loss"] is None and self.diverged_at is None:
                self.diverged_at = row["step"]

    def check_loss(self) -> None:
        if self.diverged_at is not None:
            raise StepError(
                f"node {self.node_id} ({OptimizerStep.DISPLAY_NAME}), step {self.diverged_at}: the loss is not a "
                "finite number; lower the learning rate, or clip the gradients"
            )

    def sample(self, update: int) -> None:
        if self.samples is None:
            return
        with training_mode(), averaged(self.run, self.live.network):
            Step(self.run, update, watched=True).value(self.samples)

    def save(self, folder: Path) -> None:
        with training_mode(), averaged(self.run, self.live.network):
            save_model(folder, self.live, self.schedule, self.metadata)

    @property
    def live(self) -> Model:
        return self.run.value(self.model)

    def pictures(self) -> list[Path]:
        """What to show on the node when all is done: the curve and the newest samples."""
        newest = sorted(self.folder.folder.glob("samples/*.png"))[-1:]
        return [path for path in [self.folder.folder / "loss.png", *newest] if path.is_file()]

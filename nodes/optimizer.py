"""The optimizer, and the node that trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..diffusion.schedules import Schedule
from ..training.checkpoint import CHECKPOINTS, drop_oldest, save_model
from ..training.data import DatasetInfo
from ..training.encoders import free_memory
from ..training.host import choose_device, current_host
from ..training.loop import Metrics, Trainer, averaged, prepare, training_mode
from ..training.models import Model
from ..training.optimizers import OptimizerSettings
from ..training.preflight import steps_in_words
from ..training.recorder import Recorder
from ..training.run_folder import RunFolder, versions
from ..training.state import save_state
from ..training.stream import Run, Step, StepError, Stream
from .base import LOSS, MODEL, OPTIMIZER, RUN, SAMPLES, Node, shown, workflow_metadata
from .inputs import UNIQUE_ID, choice, integer, line, number, plain_name, seed, wire
from .model import ModelInfo, trained_model
from .resume import begun_anew, state_of, what_was_restored

LOOKS = ("preview_every", "sample_every", "checkpoint_every", "keep_checkpoints")
"""The options about what happens once in a while, of which the training itself knows nothing."""

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
            "optional": {
                "samples": wire(SAMPLES, "Sample Images, to see images while it trains."),
                "resume": line(
                    "",
                    "A run to go on with, exactly where it was: the name of its folder below rollout, or a full path. "
                    "steps is the total. Empty: a new run.",
                ),
                "keep_checkpoints": integer(
                    0, 0, 100_000, "Of the copies that checkpoint_every makes, keep only so many, the newest. 0 = all."
                ),
            },
            "hidden": {**UNIQUE_ID, "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, run_name: str) -> bool | str:
        return plain_name(run_name, "folder")

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
        resume: str = "",
        prompt: Any = None,
        extra_pnginfo: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        check_that_they_fit(loss, model)
        check_precision(model.about, options["precision"])
        try:
            return self._train(loss, model, optimizer, str(unique_id), samples, resume, prompt, extra_pnginfo, options)
        finally:
            free_memory()  # the network is in cycles with what others remember of it, such as matplotlib's errors

    def _train(
        self,
        loss: Stream,
        model: Stream,
        optimizer: OptimizerSettings,
        node_id: str,
        samples: Stream | None,
        resume: str,
        prompt: Any,
        extra_pnginfo: Any,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        host = current_host()
        host.make_room()
        device = choose_device(host.device)
        state = state_of(resume, host.output_folder) if resume.strip() else None
        if state:
            state.check(options["steps"], optimizer.name)
            options["seed"] = state.seed
            prompt, extra_pnginfo = begun_anew(prompt, extra_pnginfo, node_id, resume)
        facts = {name: options[name] for name in ("seed", "steps")}
        steps, accumulation = options["steps"], options["accumulation"]
        facts |= {"node": node_id, "device": device, "versions": versions()}
        run_name, runs = options.pop("run_name"), host.output_folder / "rollout"
        folder = RunFolder(state.folder) if state else RunFolder.create(runs, run_name, facts)
        streams = [loss, model, *([samples] if samples else [])]
        run = Run(*streams, seed=options.pop("seed"), device=device, host=Recorder(host, folder))
        session = Session(run, folder, node_id, loss, model, samples, workflow_metadata(prompt, extra_pnginfo))
        looks = {name: options.pop(name) for name in LOOKS if name in options}
        trainer, told = None, []
        if state:  # what does not fit is refused before anything in the run's folder changes
            trainer = session.prepare(optimizer, state=state, **options)
            folder.go_on(state.step, facts)
            told = [what_was_restored(state, trainer)]
            run.host.resumed(node_id, told[0])
        folder.write_json("prompt.json", prompt)
        folder.write_json("workflow.json", (extra_pnginfo or {}).get("workflow", prompt))
        with folder_status(folder):
            session.train(trainer or session.prepare(optimizer, **options), **looks)
        for part in (part for stream in streams for part in stream.walk()):
            host.finish(part.node_id)
        trained = trained_model(model, folder.model_folder, node_id, self.DISPLAY_NAME)
        text = [
            *told,
            *epochs_in_words(loss, steps, accumulation),
            f"the run's folder is {folder.folder}",
            session.shares_of_time(),
        ]
        return {"ui": {"text": text, **shown(host, *session.pictures())}, "result": (trained, folder.folder)}


def epochs_in_words(loss: Stream, steps: int, accumulation: int) -> list[str]:
    """How often the training goes through its data set."""
    data = next((part for part in loss.walk() if "batch_size" in part.inputs), None)
    return [steps_in_words(data.about.count, data.inputs["batch_size"], steps, accumulation)] if data else []


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


def check_precision(info: ModelInfo, precision: str) -> None:
    """Raises ValueError for two different 16-bit formats, which autocast cannot bring together."""
    storage = info.pretrained.source.storage if info.pretrained else "fp32"
    if {storage, precision} == {"bf16", "fp16"}:
        raise ValueError(
            f"precision is {precision}, and storage in Load Pretrained is {storage}: choose the same for both, or fp32 "
            "for one of them"
        )


def check_family(data: DatasetInfo, info: ModelInfo, where: str) -> None:
    """Raises ValueError where a data set was not encoded by the pretrained model that is trained on it."""
    if info.pretrained is None or data.family == info.pretrained.info.family:
        return  # a new model learns from any latents that fit it
    made = f"encoded for another model ({data.family})" if data.family else "made of pixels"
    raise ValueError(f"{where} is {made}: put an Encode Dataset node behind it, with the pipeline of Load Pretrained")


@contextmanager
def folder_status(folder: RunFolder) -> Iterator[None]:
    """The run's folder says how it ended, whatever happens."""
    begun = time.perf_counter() - folder.facts.get("seconds", 0.0)  # those before a resume count too
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

    def prepare(self, settings: OptimizerSettings, **options: Any) -> Trainer:
        """Make the model and all that trains it; ``options`` are those of :func:`prepare`."""
        return prepare(self.loss, self.model, settings, run=self.run, node_id=self.node_id, **options)

    def train(
        self,
        trainer: Trainer,
        preview_every: int,
        sample_every: int,
        checkpoint_every: int,
        keep_checkpoints: int = 0,
    ) -> None:
        """Train to the end; when stopped or failing, what was learnt so far is saved first."""
        steps, reached = trainer.steps, trainer.done
        working = [*(stream.node_id for stream in self.loss.walk()), self.node_id]
        try:
            self.run.host.check_interrupted()
            for step in trainer.updates(preview_every):
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
                    self.keep_state(trainer, reached)
                    self.save(self.folder.folder / CHECKPOINTS / f"step_{reached:06d}")
                    drop_oldest(self.folder.folder / CHECKPOINTS, keep_checkpoints)
                self.run.host.check_interrupted()
            self.report()
            self.check_loss()
            self.sample(steps)
        except BaseException:
            try:
                self.conclude(trainer, reached)
            except Exception:  # a full disk must not hide why the run ended
                logging.exception("the run's last state could not be saved")
            raise
        self.conclude(trainer, steps)

    def shares_of_time(self) -> str:
        """Which node took how much of the step, the largest first."""
        streams = [*self.loss.walk(), *(self.samples.walk() if self.samples else ())]
        titles = {stream.node_id: stream.title for stream in streams}
        total = sum(self.metrics.seconds.values()) or 1.0
        shares = sorted(((seconds / total, name) for name, seconds in self.metrics.seconds.items()), reverse=True)
        named = [(share, titles.get(name) or name.removeprefix(f"{self.node_id}.")) for share, name in shares]
        return "time: " + ", ".join(f"{name} {share:.0%}" for share, name in named if share >= 0.005)

    def conclude(self, trainer: Trainer, reached: int) -> None:
        """The last metrics, state and model if it has not diverged, facts and the curve; if there was a step at all."""
        with ExitStack() as last:  # the last named comes first, and each is done whatever happens to the others
            if reached:
                last.callback(self.folder.plot)
                last.callback(lambda: self.folder.update(shares_of_time=self.shares_of_time()))
                last.callback(self.save, self.folder.model_folder)
                last.callback(self.keep_state, trainer, reached)
                last.callback(self.report)
            self.folder.update(steps_done=reached)

    def report(self) -> None:
        rows = self.metrics.read()
        for row in rows:
            if row["loss"] is None and self.diverged_at is None:
                self.diverged_at = row["step"]
        if rows:
            self.run.host.metrics(self.node_id, rows)

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
        """Save the model, unless it has diverged."""
        if self.diverged_at is not None:
            return
        with training_mode(), averaged(self.run, self.live.network):
            save_model(folder, self.live, self.schedule, self.metadata)

    def keep_state(self, trainer: Trainer, reached: int) -> None:
        """Save what a resumed run goes on from: not half an update, and nothing that has diverged."""
        whole = trainer.done == reached and self.diverged_at is None
        if whole and all(bool(weight.isfinite().all()) for weight in trainer.parameters):
            save_state(self.folder.folder, trainer)

    @property
    def live(self) -> Model:
        return self.run.value(self.model)

    def pictures(self) -> list[Path]:
        """What to show on the node when all is done: the curve and the newest samples."""
        newest = sorted(self.folder.folder.glob("samples/*.png"))[-1:]
        return [path for path in [self.folder.folder / "loss.png", *newest] if path.is_file()]

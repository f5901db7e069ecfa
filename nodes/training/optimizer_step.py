"""Optimizer Step: the node that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...data.run_preflight import run_in_words
from ...hosts.current import current_host
from ...hosts.device import choose_device, free_memory, memory_of
from ...runs.fit import fit
from ...runs.looks import Checkpoint, Sample, TimeBudget
from ...runs.pictures.kept import pictures_of
from ...runs.processes.launched import train_launched
from ...runs.run_folder import RunFolder, facts_in
from ...runs.session import Look
from ...training.optimizers import OptimizerSettings
from ...training.options import TrainingOptions
from ...training.state import SavedState
from ...training.stream import Stream
from ..base import CATEGORY, DATASET, LOSS, MODEL, OPTIMIZER, RUN, SAMPLES, Node, shown, workflow_metadata
from ..inputs import (
    UNIQUE_ID,
    checked_name,
    choice,
    defaults,
    integer,
    line,
    number,
    plain_name,
    seed,
    settings_in,
    switch,
    wire,
)
from ..models.model import trained_model
from .checks import check_options, check_that_they_fit, memory_in_words, validations
from .resume import begun_anew, state_of


class OptimizerStep(Node):
    NODE_ID = "RolloutOptimizerStep"
    DISPLAY_NAME = "Optimizer Step"
    CATEGORY = f"{CATEGORY}/train"
    DESCRIPTION = (
        "Trains: pulls the loss once per step, goes back through it and changes the weights. Leaves a folder with the "
        "workflow, metrics, curves, sample images, rollouts and the trained model."
    )
    SEARCH_ALIASES = (
        "train",
        "trainer",
        "training loop",
        "ema",
        "mixed precision",
        "steps",
        "epoch",
        "epochs",
        "seed",
        "gradient accumulation",
        "checkpoint",
        "resume",
    )
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
                    "steps is the total. run_00001@250 goes back to its state after step 250. Empty: a new run.",
                ),
                "keep_checkpoints": integer(
                    0, 0, 100_000, "Of the copies that checkpoint_every makes, keep only so many, the newest. 0 = all."
                ),
                "keep_states": integer(
                    2,
                    1,
                    1000,
                    "States to go on from, the newest. One is kept every few minutes; more of them let you go back "
                    "further, to before a training went wrong. Each is as large as three times what is trained.",
                    advanced=True,
                ),
                "max_minutes": number(
                    0.0,
                    0.0,
                    100_000.0,
                    1.0,
                    "End the training, as finished, after so many minutes, however many steps were done. 0 = no limit.",
                    advanced=True,
                ),
                "on_bad_step": choice(
                    ("skip", "stop"),
                    "skip",
                    "What to do with a step whose loss is no finite number. skip: learn nothing from it, name its "
                    "pictures, and go on; ten in a row go back to the last good state, once. stop: end the run.",
                    advanced=True,
                ),
                "on_out_of_memory": choice(
                    ("stop", "halve"),
                    "stop",
                    "What to do where the memory is too small for the batch. stop: end the run, saying what to "
                    "change. halve: compute its loss in parts; slower, with the same result.",
                    advanced=True,
                ),
                "compile": switch(
                    False,
                    "Compile the network with torch.compile: the first steps take minutes, the others less time, "
                    "mostly on a GPU. Needs a C++ compiler.",
                    advanced=True,
                ),
                "weights_dtype": choice(
                    ("fp32", "bf16"),
                    "fp32",
                    "What trained weights are kept in. bf16: half of their memory, for training a whole model; updates "
                    "are computed in fp32 and rounded stochastically, so that small ones are not lost.",
                    advanced=True,
                ),
                "fused_backward": switch(
                    False,
                    "Change each weight as soon as its gradient is there, and let go of that: for training a whole "
                    "model. Needs clip_norm 0 and accumulation 1.",
                    advanced=True,
                ),
                "offload_activations": switch(
                    False,
                    "What the backward pass needs of the forward waits in main memory: less on the GPU, and slower.",
                    advanced=True,
                ),
                "processes": integer(
                    1,
                    1,
                    1024,
                    "Train with so many processes of this machine, one for each GPU, by Accelerate. batch_size is that "
                    "of each: with 4 of them the batch is four times as large.",
                    advanced=True,
                ),
                "validation": wire(
                    DATASET,
                    "Images that are not trained, for the validation loss: a data set of its own. Not needed where "
                    "Image Folder Dataset keeps a share back (validation).",
                ),
                "validate_every": integer(
                    100,
                    0,
                    1_000_000,
                    "Steps between two measurements of the validation loss, where there are images for it; also before "
                    "the first step and after the last. Images, noise and levels are always the same. 0 = never.",
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
        validation: Stream | None = None,
        resume: str = "",
        prompt: Any = None,
        extra_pnginfo: Any = None,
        **widgets: Any,
    ) -> dict[str, Any]:
        widgets = {**defaults(OptimizerStep), **widgets}
        checked_name(widgets["run_name"], "folder")
        check_that_they_fit(loss, model, *([validation] if validation else []))
        looks: list[Look] = [Sample(samples, widgets["sample_every"])] if samples else []
        looks += validations(loss, validation, widgets["validate_every"])
        try:
            return self.train(loss, model, optimizer, str(unique_id), looks, resume, prompt, extra_pnginfo, widgets)
        finally:
            free_memory()  # the network is in cycles with what others remember of it, such as matplotlib's errors

    def train(
        self,
        loss: Stream,
        model: Stream,
        optimizer: OptimizerSettings,
        node_id: str,
        looks: list[Look],
        resume: str,
        prompt: Any,
        extra_pnginfo: Any,
        widgets: dict[str, Any],
    ) -> dict[str, Any]:
        host, options, steps = current_host(), settings_in(widgets, TrainingOptions), widgets["steps"]
        check_options(model.about, optimizer, options, max(host.processes.count, widgets["processes"]))
        host.make_room()
        state, kept, extra = None, prompt, extra_pnginfo
        if resume.strip():
            state = state_of(resume, host.output_folder)
            state.check(steps, optimizer.name)
            kept, extra = begun_anew(prompt, extra_pnginfo, node_id, resume)
        files = {"prompt.json": kept, "workflow.json": (extra or {}).get("workflow", kept)}
        if widgets["processes"] > 1 and host.processes.count == 1:
            return self.launch(model, node_id, widgets["processes"], prompt, state, files)
        every, keep = widgets["checkpoint_every"], widgets["keep_checkpoints"]
        limit = [TimeBudget(widgets["max_minutes"])] if widgets["max_minutes"] else []
        copies = Checkpoint(every, keep, workflow_metadata(kept, extra), keep_states=widgets["keep_states"])
        session = fit(
            loss,
            model,
            optimizer,
            steps=steps,
            folder=host.output_folder / "rollout" / widgets["run_name"],
            resume=state,
            seed=widgets["seed"],
            device=host.device,
            host=host,
            looks=[*limit, *looks, copies],  # a validation hears of the limit, and measures the end
            preview_every=widgets["preview_every"],
            files=files,
            node_id=node_id,
            notes=[
                *run_in_words(loss, model, optimizer, steps, options.accumulation * host.processes.count),
                *memory_in_words(loss, model, optimizer, options, memory_of(host.device), looks),
            ],
            options=options,
        )
        assert session.folder is not None
        folder = session.folder.folder
        text = [*session.notes, f"the run's folder is {folder}", session.shares_of_time()]
        return {"ui": {"text": text, **pictures(folder)}, "result": self.results(model, node_id, folder)}

    def launch(
        self, model: Stream, node_id: str, count: int, prompt: Any, state: SavedState | None, files: dict[str, Any]
    ) -> dict[str, Any]:
        """Train with several processes, which run the workflow up to here by themselves."""
        host = current_host()
        if not prompt:
            raise ValueError("processes: the workflow is not known here; set 1, or use accelerate launch")
        device = choose_device(host.device).partition(":")[0]
        folder = train_launched(
            prompt, node_id, count, device=device, host=host, resumed=state.folder if state else None
        )
        for name, content in files.items():
            RunFolder(folder).write_json(name, content)
        text = [*facts_in(folder).get("said", []), f"the run's folder is {folder}"]
        return {"ui": {"text": text, **pictures(folder)}, "result": self.results(model, node_id, folder)}

    def results(self, model: Stream, node_id: str, run: Path) -> tuple[Stream, Path]:
        """The outputs: the trained model, from its run's folder, and the run."""
        return trained_model(model, RunFolder(run).model_folder, node_id, self.DISPLAY_NAME), run


def pictures(run: Path) -> dict[str, Any]:
    """What sums the run up, for the eye."""
    return shown(current_host(), *pictures_of(run))

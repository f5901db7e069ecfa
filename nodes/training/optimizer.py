"""The optimizer, and the node that trains."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ...data.data import DatasetInfo, held_out
from ...data.run_preflight import run_in_words
from ...data.step_preflight import step_in_words
from ...diffusion.schedules import Schedule
from ...hosts.current import current_host
from ...hosts.device import choose_device, free_memory, memory_of
from ...models.swapping import NOT_OFFLOADED, NOT_TRAINED
from ...runs.fit import fit
from ...runs.looks import Checkpoint, Sample, TimeBudget, Validate
from ...runs.processes.launched import train_launched
from ...runs.run_folder import RunFolder, facts_in
from ...runs.session import Look
from ...training import one_by_one
from ...training.optimizers import OptimizerSettings, check_optimizer, installed
from ...training.state import SavedState
from ...training.stream import Stream
from ..base import CATEGORY, DATASET, LOSS, MODEL, OPTIMIZER, RUN, SAMPLES, Node, shown, workflow_metadata
from ..inputs import UNIQUE_ID, checked_name, choice, integer, line, number, plain_name, seed, switch, wire
from ..models.model import ModelInfo, trained_model
from .resume import begun_anew, state_of

log = logging.getLogger(__name__)

OPTIONS_OF_FIT = ("steps", "seed", "accumulation", "clip_norm", "ema_decay", "precision", "preview_every",
                  "on_bad_step", "on_out_of_memory", "compile", "weights_dtype", "fused_backward",
                  "offload_activations")  # fmt: skip


class Optimizer(Node):
    NODE_ID = "RolloutOptimizer"
    DISPLAY_NAME = "Optimizer"
    CATEGORY = f"{CATEGORY}/train"
    DESCRIPTION = "How the weights are changed, and how the learning rate goes over the training."
    SEARCH_ALIASES = (
        "adamw",
        "adafactor",
        "sgd",
        "muon",
        "prodigy",
        "lion",
        "came",
        "8bit",
        "learning rate",
        "lr scheduler",
        "weight decay",
        "betas",
        "warmup",
    )
    RETURN_TYPES = (OPTIMIZER,)
    RETURN_NAMES = ("optimizer",)
    OUTPUT_TOOLTIPS = ("Settings for Optimizer Step.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "optimizer": choice(
                    installed(),
                    "adamw",
                    "adamw: the safe choice. adafactor: least memory. sgd: plain. muon: for matrices, with adamw for "
                    "all other weights. Where pytorch-optimizer is installed, prodigy (finds the learning rate: set "
                    "1), came, lion (a third of adamw's rate) and adamw_schedule_free (needs no lr_schedule); with "
                    "bitsandbytes adamw_8bit.",
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
                    "Memory of past gradients: the first beta of adamw and its kin, the momentum of sgd and muon.",
                    advanced=True,
                ),
                "beta2": number(
                    0.999,
                    0.0,
                    0.99999,
                    0.001,
                    "The second beta of adamw, prodigy and came: memory of past squared gradients.",
                    advanced=True,
                ),
            },
            "optional": {
                "relative_step": switch(
                    False,
                    "adafactor: learning_rate counts in sizes of the weight itself, 1e-2 is usual; for full "
                    "fine-tuning, since a new LoRA begins at zero and would hardly learn.",
                    advanced=True,
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, optimizer: str, learning_rate: float) -> bool | str:
        try:
            if optimizer is not None:
                check_optimizer(optimizer, learning_rate)
        except ValueError as error:
            return str(error)
        return True

    def build(self, optimizer: str, **options: Any) -> tuple[OptimizerSettings]:
        check_optimizer(optimizer, options["learning_rate"])
        return (OptimizerSettings(name=optimizer, **options),)  # type: ignore[arg-type]


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
        **options: Any,
    ) -> dict[str, Any]:
        checked_name(options["run_name"], "folder")
        check_that_they_fit(loss, model, *([validation] if validation else []))
        check_precision(model.about, options["precision"])
        check_one_by_one(optimizer, options, current_host().processes.count)
        if options.get("offload_activations") and swaps(model.about):
            raise ValueError(NOT_OFFLOADED)
        looks: list[Look] = [Sample(samples, options["sample_every"])] if samples else []
        looks += validations(loss, validation, options.get("validate_every", 100))
        try:
            return self.train(loss, model, optimizer, str(unique_id), looks, resume, prompt, extra_pnginfo, options)
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
        options: dict[str, Any],
    ) -> dict[str, Any]:
        host = current_host()
        host.make_room()
        asked = prompt
        state = state_of(resume, host.output_folder) if resume.strip() else None
        if state:
            state.check(options["steps"], optimizer.name)
            prompt, extra_pnginfo = begun_anew(prompt, extra_pnginfo, node_id, resume)
        metadata = workflow_metadata(prompt, extra_pnginfo)
        files = {"prompt.json": prompt, "workflow.json": (extra_pnginfo or {}).get("workflow", prompt)}
        count = options.get("processes", 1)
        if count > 1 and host.processes.count == 1:
            return self.launch(model, node_id, count, asked, state, files)
        if minutes := options.get("max_minutes", 0):
            looks.insert(0, TimeBudget(minutes))  # a validation hears of it, and measures the end
        every, keep = options["checkpoint_every"], options.get("keep_checkpoints", 0)
        looks.append(Checkpoint(every, keep, metadata, keep_states=options.get("keep_states", 2)))
        session = fit(
            loss,
            model,
            optimizer,
            folder=host.output_folder / "rollout" / options["run_name"],
            resume=state,
            device=host.device,
            host=host,
            looks=looks,
            files=files,
            node_id=node_id,
            notes=[
                *run_in_words(loss, model, optimizer, options["steps"], options["accumulation"] * host.processes.count),
                *memory_in_words(loss, model, optimizer, options, memory_of(host.device), looks),
            ],
            **{name: value for name, value in options.items() if name in OPTIONS_OF_FIT},
        )
        assert session.folder is not None
        trained = trained_model(model, session.folder.model_folder, node_id, self.DISPLAY_NAME)
        text = [
            *session.notes,
            f"the run's folder is {session.folder.folder}",
            session.shares_of_time(),
        ]
        return {"ui": {"text": text, **shown(host, *session.pictures())}, "result": (trained, session.folder.folder)}

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
        record = RunFolder(folder)
        for name, content in files.items():
            record.write_json(name, content)
        trained = trained_model(model, record.model_folder, node_id, self.DISPLAY_NAME)
        text = [*facts_in(folder).get("said", []), f"the run's folder is {folder}"]
        pictures = [
            path for path in [folder / "loss.png", *sorted(folder.glob("samples/*.png"))[-1:]] if path.is_file()
        ]
        return {"ui": {"text": text, **shown(host, *pictures)}, "result": (trained, folder)}


def memory_in_words(
    loss: Stream,
    model: Stream,
    optimizer: OptimizerSettings,
    options: Mapping[str, Any],
    room: int | None,
    looks: Iterable[Look],
) -> list[str]:
    """What a step needs, where all that it depends on is known; it never keeps a training from starting."""
    info: ModelInfo = model.about
    data = loss.data()
    encoders = getattr(data.inputs.get("dataset"), "encoders", None) if data else None
    put_on = [part.inputs for part in model.walk() if "asked" in part.inputs]
    adapters = [inputs["asked"] for inputs in put_on]
    drawn = [part.inputs.get("prompts") for look in looks for stream in look.streams for part in stream.walk()]
    if info.pretrained is None or data is None or encoders is None or len(adapters) != len(info.adapters):
        return []
    about: DatasetInfo = data.about
    try:
        return step_in_words(
            info.pretrained, adapters, about, encoders.factor, data.inputs["batch_size"], optimizer,
            options["precision"], options["ema_decay"] > 0, room, trained=options.get("weights_dtype", "fp32"),
            fused=options.get("fused_backward", False), reads_anew=any(inputs["read_anew"] for inputs in put_on),
            guided=any(prompts is not None and prompts.negative is not None for prompts in drawn),
        )  # fmt: skip
    except Exception as error:  # it goes through code that is not ours, with tensors that are none
        log.debug("the memory of a step could not be told: %s", error)
        return []


def validations(loss: Stream, wired: Stream | None, every: int) -> list[Look]:
    """The look that measures the validation loss, on the data set that is wired or else on what the trained one keeps
    back; none where there are neither, or never.

    Raises ValueError where the loss has no noise schedule to measure by.
    """
    if not every:
        return []
    data = wired or loss.data()
    if data is None:
        return []
    dataset = data.inputs["dataset"] if wired else held_out(data.inputs.get("dataset"))
    if dataset is None:
        return []
    if next(loss.constants(Schedule), None) is None:
        raise ValueError("validation: the loss has no noise schedule to measure by; set validate_every to 0")
    return [Validate(dataset, data.inputs["batch_size"], every)]


def check_that_they_fit(loss: Stream, model: Stream, *others: Stream) -> None:
    """Raises ValueError where the wires cannot be right, before anything is loaded."""
    if model not in loss.walk():
        raise ValueError("model: wire the same model into the loss and into Optimizer Step")
    info: ModelInfo = model.about
    drops = any(stream.inputs.get("label_dropout") for stream in loss.walk())
    if drops and info.pretrained is None and info.classes and not info.null_class:
        raise ValueError("label_dropout in Noisy Batch trains a class for none: turn on null_class in New Model")
    if swaps(info) and not info.adapters:
        raise ValueError(NOT_TRAINED)
    for stream in dict.fromkeys(part for each in (loss, *others) for part in each.walk()):
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


def check_one_by_one(optimizer: OptimizerSettings, options: Mapping[str, Any], processes: int) -> None:
    """Raises ValueError, before anything is loaded, where weights cannot be updated one at a time as they are to be."""
    chosen = {"weights_dtype": "fp32", "fused_backward": False, "on_out_of_memory": "stop", **options}
    if chosen["fused_backward"] or chosen["weights_dtype"] == "bf16":
        one_by_one.check(optimizer.name, {**chosen, "processes": max(processes, options.get("processes", 1))})


def swaps(info: ModelInfo) -> bool:
    """Whether blocks of the network wait in main memory."""
    return info.pretrained is not None and info.pretrained.source.swap > 0


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
    if not info.family or data.family == info.family:
        return  # a new model learns from any latents that fit it
    if data.family:
        made = f"encoded for another model ({data.family}): wire the pipeline of the model that is trained into it"
    else:
        made = "made of pixels: put an Encode Dataset node behind it, with the pipeline of the model"
    raise ValueError(f"{where} is {made}")

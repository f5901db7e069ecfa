"""What Optimizer Step looks at before anything is loaded: whether wires and widgets fit together, and the memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ...data.data import DatasetInfo, held_out
from ...data.step_preflight import largest, step_in_words
from ...diffusion.schedules import Schedule
from ...models.swapping import NOT_OFFLOADED, NOT_TRAINED
from ...runs.looks import Validate
from ...runs.session import Look
from ...training import one_by_one
from ...training.optimizers import OptimizerSettings
from ...training.options import TrainingOptions
from ...training.stream import Stream
from ..models.model import ModelInfo

log = logging.getLogger(__name__)


def memory_in_words(
    loss: Stream,
    model: Stream,
    optimizer: OptimizerSettings,
    options: TrainingOptions,
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
            info.pretrained, adapters, largest(about, encoders.factor), data.inputs["batch_size"], optimizer, options,
            room, reads_anew=any(inputs["read_anew"] for inputs in put_on),
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
        if isinstance(stream.about, DatasetInfo):
            check_data(stream, stream.about, info)


def check_data(stream: Stream, data: DatasetInfo, info: ModelInfo) -> None:
    """Raises ValueError where a stream's data set is none for this model."""
    where = f"node {stream.node_id} ({stream.title})"
    check_family(data, info, where)
    if data.channels != info.channels or (info.size and data.size != info.size):
        raise ValueError(
            f"the model is made for {info.channels} x {info.size} x {info.size} images, and {where} gives "
            f"{data.channels} x {data.size} x {data.size}"
        )
    if info.classes and not 0 < len(data.classes) <= info.classes:
        raise ValueError(f"the model knows {info.classes} classes, and {where} has {len(data.classes)}")


def swaps(info: ModelInfo) -> bool:
    """Whether blocks of the network wait in main memory."""
    return info.pretrained is not None and info.pretrained.source.swap > 0


def check_options(info: ModelInfo, optimizer: OptimizerSettings, options: TrainingOptions, processes: int) -> None:
    """Raises ValueError, before anything is loaded, for options that do not go with the model or with one another."""
    check_precision(info, options.precision)
    one_by_one.check(optimizer.name, options, processes)
    if options.offload_activations and swaps(info):
        raise ValueError(NOT_OFFLOADED)


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

"""Optimizer, training loop and sample images."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ...training.optimizers import NAMES
from .draft import Draft
from .report import Report
from .rollout import LOSS
from .settings import Settings

TRAIN, RESULTS = "Train", "Results"
EQUAL_OPTIMIZERS = (
    "torch-adamw", "adamw_bf16", "optimi-adamw", "bnb-adamw", "bnb-adamw8bit", "torch-adafactor", "torch-sgd", "muon",
    "prodigy", "optimi-lion", "pytorch-lion", "adamw_schedulefree",
)  # fmt: skip
"""Optimizers of SimpleTuner that ours are the same as."""
ADAPTIVE, OWN_RATE = ("prodigy", "dadapt"), 1e-4
"""Optimizers that find their learning rate by themselves, and what others get in its place."""
OTHER_WORDS = {"schedulefree": "adamw_schedule_free", "adamw8bit": "adamw_8bit"}
"""What SimpleTuner calls some of ours."""
DEFAULT_STEPS = 1000


def optimizer(draft: Draft, config: Settings) -> str:
    schedule, warmup = config["lr_scheduler"], config["lr_warmup_steps"]
    if schedule == "constant" and warmup:  # SimpleTuner reads it so, too
        schedule = "constant_with_warmup"
    name, rate = config["optimizer"], config["learning_rate"]
    ours = nearest_optimizer(name, draft.report)
    if any(word in name and word not in ours for word in ADAPTIVE):
        draft.report.changed.append(
            f"learning_rate: {name} finds its own rate, and {rate:g} only scales it; {ours} would take it as it is, so "
            f"it is {OWN_RATE:g}, the usual one for LoRA"
        )
        rate = OWN_RATE
    if schedule == "sine":
        draft.report.changed.append("lr_scheduler: sine, which swings up and down, is not offered; it is cosine")
        schedule = "cosine"
    return draft.add(
        LOSS,
        "RolloutOptimizer",
        optimizer=ours,
        learning_rate=rate,
        lr_schedule=schedule,
        warmup_steps=warmup,
        num_cycles=config["lr_num_cycles"],
        weight_decay=config["adam_weight_decay"],
        beta1=first_of(config["optimizer_beta1"], config["adam_beta1"]),
        beta2=first_of(config["optimizer_beta2"], config["adam_beta2"]),
        relative_step=config["optimizer"] == "torch-adafactor",
    )


def first_of(value: Any, otherwise: Any) -> Any:
    """The first one, if it is given at all."""
    return otherwise if value is None else value


def nearest_optimizer(name: str, report: Report) -> str:
    known = {optimizer: optimizer for optimizer in sorted(NAMES, key=len, reverse=True)}
    ours = next((ours for word, ours in (OTHER_WORDS | known).items() if word in name), "adamw")
    if name not in EQUAL_OPTIMIZERS:
        report.changed.append(f"optimizer: {name!r} becomes {ours!r}, the nearest here; learning rates may differ")
    return ours


def optimizer_step(draft: Draft, config: Settings, images: int | None, **links: Any) -> str:
    clip = config["max_grad_norm"]
    if clip and config["grad_clip_method"] == "value":
        draft.report.changed.append(
            f"grad_clip_method: SimpleTuner cuts each number of a gradient at {clip:g}; Optimizer Step scales whole "
            "gradients longer than that, which happens more often. Raise clip_norm, or set it to 0, to be as before"
        )
    return draft.add(
        TRAIN,
        "RolloutOptimizerStep",
        steps=steps(config, images, draft.report),
        seed=config["seed"],
        accumulation=config["gradient_accumulation_steps"],
        clip_norm=clip,
        ema_decay=config["ema_decay"] if config["use_ema"] else 0.0,
        precision=precision(config["mixed_precision"], draft.report),
        sample_every=first_of(config["validation_steps"], config["validation_step_interval"]),
        checkpoint_every=first_of(config["checkpointing_steps"], config["checkpoint_step_interval"]),
        keep_checkpoints=config["checkpoints_total_limit"],
        run_name=run_name(config),
        **links,
    )


def precision(mixed: str, report: Report) -> str:
    ours = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}.get(mixed, "")
    if not ours:
        report.changed.append(f"mixed_precision: {mixed!r} is not offered; it is bf16")
    return ours or "bf16"


def steps(config: Settings, images: int | None, report: Report) -> int:
    """max_train_steps, or the steps of num_train_epochs; ``images`` with their repeats, None if that is not known."""
    fixed: int = config["max_train_steps"]
    if fixed > 0:
        return fixed
    epochs, accumulation = config["num_train_epochs"], config["gradient_accumulation_steps"]
    batch_size = config["train_batch_size"]
    if epochs <= 0:
        report.left.append(
            "max_train_steps, num_train_epochs: both are 0, which SimpleTuner refuses; write the number into Optimizer "
            f"Step: steps (now {DEFAULT_STEPS})"
        )
        return DEFAULT_STEPS
    if images is None:
        report.left.append(
            f"num_train_epochs: {epochs} epochs are steps only when the images can be counted, and their folder is not "
            f"here; write images x repeats / batch x {epochs} into Optimizer Step: steps (now {DEFAULT_STEPS})"
        )
        return DEFAULT_STEPS
    per_epoch = math.ceil(images / max(1, batch_size * accumulation))
    report.mapped.append(
        f"num_train_epochs: {images} images (repeats included) / batch {batch_size} x {accumulation} = {per_epoch} "
        f"steps per epoch, {per_epoch * epochs} in {epochs}"
    )
    return max(1, per_epoch * epochs)


def sample_prompts(
    draft: Draft, config: Settings, library: Mapping[str, Any], model: list[Any], pipeline: list[Any]
) -> list[Any] | None:
    """The link to Sample Prompts; None where there is nothing to sample."""
    if config["validation_disable"]:
        return None
    prompts = [config["validation_prompt"]] if config["validation_prompt"] else []
    prompts += [text for text in library.values() if isinstance(text, str)]
    prompts = [" ".join(prompt.split()) for prompt in prompts if prompt.strip()]
    if not prompts:
        draft.report.changed.append("validation_prompt: there is none, so there are no sample images")
        return None
    width, height = size(config["validation_resolution"])
    node = draft.add(
        LOSS,
        "RolloutSamplePrompts",
        model=model,
        pipeline=pipeline,
        prompts="\n".join(prompts),
        negative=config["validation_negative_prompt"],
        guidance=config["validation_guidance"],
        width=width,
        height=height,
        steps=config["validation_num_inference_steps"],
        count=config["num_validation_images"],
        seed=first_of(config["validation_seed"], config["seed"]),
    )
    return [node, 0]


def size(resolution: str) -> tuple[int, int]:
    """(width, height) in pixels of "1024", "1024x768" or the first of several; below 10 they are megapixels."""
    first = resolution.split(",")[0].strip().lower()
    sides = re.fullmatch(r"(\d+)x(\d+)", first)
    if sides:
        width, height = int(sides[1]), int(sides[2])
    else:
        try:
            side = float(first)
        except ValueError:
            raise ValueError(
                f"validation_resolution: {resolution!r} is neither a number of pixels nor like 1024x768"
            ) from None
        width = height = round(1000 * math.sqrt(side)) if side < 10 else round(side)
    return max(8, round(width / 8) * 8), max(8, round(height / 8) * 8)


def results(draft: Draft, config: Settings, trained: str, schedule: list[Any], adapter: bool) -> None:
    """What is left of the training: the weights, and the curves."""
    name = run_name(config)
    if adapter:
        draft.add(RESULTS, "RolloutSaveLora", model=[trained, 0], name=name, format=config["lora_format"])
    else:
        draft.add(RESULTS, "RolloutSaveModel", model=[trained, 0], schedule=schedule, name=name)
    draft.add(RESULTS, "RolloutPlotMetrics", run=[trained, 1], metrics="loss, rollout_probability, drift")


def run_name(config: Settings) -> str:
    """The last folder of output_dir."""
    return PurePath(config["output_dir"].replace("\\", "/")).name or "simpletuner"

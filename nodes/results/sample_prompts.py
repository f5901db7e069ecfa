"""Images for prompts, from a pretrained model, while it trains and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL.Image import Image
from torch import Tensor

from ...hosts.current import current_host
from ...hosts.device import choose_device
from ...models.families import PretrainedModel
from ...models.hosted import HostedModel, HostedNetwork
from ...models.loading.pretrained import Pretrained
from ...models.model import Model
from ...runs import hosted_sampling
from ...runs.pictures.preview import grid
from ...runs.prompt_sampling import (
    EncodedPrompts,
    SamplingSettings,
    check_size,
    controls_for,
    encode_prompts,
    sample_prompts,
    sampling_pipeline,
)
from ...training.forward import training_mode
from ...training.stream import Step, Stream
from ..base import CATEGORY, MODEL, PIPELINE, SAMPLES, StepNode
from ..inputs import UNIQUE_ID, integer, line, number, seed, wire
from ..training.optimizer_step import OptimizerStep
from .sample import TIME_SHIFT, draw_now, no_images


class SamplePrompts(StepNode):
    NODE_ID = "RolloutSamplePrompts"
    DISPLAY_NAME = "Sample Prompts"
    CATEGORY = f"{CATEGORY}/results"
    DESCRIPTION = (
        "Makes images for prompts with a pretrained model, as diffusers' own pipeline does. Wire samples into "
        "Optimizer Step to see them while it trains, always from the same noise; otherwise they are made right away. "
        "For a ComfyUI model, ComfyUI's own sampler makes them."
    )
    SEARCH_ALIASES = (
        "generate",
        "validation",
        "text to image",
        "ksampler",
        "clip text encode",
        "cfg",
        "guidance",
        "preview",
        "negative prompt",
    )
    RETURN_TYPES = (SAMPLES, "IMAGE")
    RETURN_NAMES = ("samples", "images")
    OUTPUT_TOOLTIPS = (
        "For Optimizer Step, or for another Sample Prompts that shall be drawn at the same time.",
        "The images, for Save Image, Preview Image and others in ComfyUI; not where Optimizer Step draws them.",
    )
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire(MODEL, "The model to sample from: with its Add LoRA, or from Optimizer Step."),
                "pipeline": wire(PIPELINE, "Its text encoders and VAE, from Load Pretrained."),
                "prompts": line(
                    "a photo of a cat",
                    "One prompt a line. For a class-conditional model, one class a line: its number or its name.",
                    multiline=True,
                ),
                "negative": line(
                    "",
                    "What the images shall not look like. Used with guidance above 1 (Z-Image, Krea 2: above 0), but "
                    "not by FLUX.1.",
                ),
                "guidance": number(
                    5.0,
                    0.0,
                    100.0,
                    0.1,
                    "How strongly images follow the prompt: 7.5 for SD 1.5, 5 for SDXL and SD3, 3.5 for FLUX dev. "
                    "1 = not guided; for Z-Image and Krea 2, which count from there, 0.",
                ),
                "width": integer(0, 0, 16384, "In pixels. 0 = the size that the model was made for.", step=8),
                "height": integer(0, 0, 16384, "In pixels. 0 = the size that the model was made for.", step=8),
                "steps": integer(28, 1, 1000, "Sampling steps, with the pipeline's own scheduler."),
                "count": integer(1, 1, 64, "Images a prompt, from as many seeds."),
                "seed": seed("Where the first image of every prompt starts from; the next one from the next seed."),
            },
            "optional": {
                "samples": wire(SAMPLES, "Another Sample Prompts, to be drawn at the same time."),
                "control": line(
                    "",
                    "For models that edit: the picture that the prompts change. One file for all, or one a line for "
                    "each prompt.",
                    multiline=True,
                ),
                "time_shift": TIME_SHIFT,
            },
            "hidden": {**UNIQUE_ID, "prompt": "PROMPT"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, prompts: str) -> bool | str:
        if prompts is not None and not lines_of(prompts):
            return "prompts: write at least one, each on a line of its own"
        return True

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> float:
        return float("nan")  # whether an Optimizer Step reads the samples is in no input, so no cache can know

    def build(
        self,
        unique_id: str,
        model: Stream,
        pipeline: Pretrained | HostedModel,
        prompts: str,
        negative: str,
        samples: Stream | None = None,
        control: str = "",
        prompt: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        check_that_they_fit(model, pipeline)
        chosen, while_training = SamplingSettings(**settings), is_trained_with(prompt or {}, str(unique_id))
        nothing = no_images(prompt, unique_id, DRAWN_LATER) if while_training else None
        above = 1.0 if isinstance(pipeline, HostedModel) else pipeline.info.kind.guided_above
        avoided = negative.strip() if chosen.guidance > above else None
        current_host().make_room()
        with training_mode():  # nothing made in ComfyUI's inference mode can go through a network that is trained
            if isinstance(pipeline, HostedModel):
                if control.strip():
                    raise ValueError("control: a ComfyUI model is shown no picture here; clear it")
                if chosen.time_shift:
                    raise ValueError("time_shift: ComfyUI's own sampler has none; set it to 0")
                hosted_sampling.check_size(pipeline, chosen.width, chosen.height)
                encoded = hosted_sampling.encode_prompts(pipeline, lines_of(prompts), avoided)
            else:
                check_size(pipeline, chosen.width, chosen.height)
                shown = controls_for(pipeline, lines_of(prompts), lines_of(control))
                device = choose_device(current_host().device)
                encoded = encode_prompts(pipeline, lines_of(prompts), avoided, device, shown)
        inputs = {"model": model, "pretrained": pipeline, "prompts": encoded, "settings": chosen, "samples": samples}
        stream = self.stream(unique_id, inputs)
        if while_training:
            return {"ui": {}, "result": (stream, nothing)}
        ui, images = draw_now(stream, f"{chosen.steps}_steps_seed_{chosen.seed}", lambda x: sheet(x, chosen.count))
        return {"ui": ui, "result": (stream, images.movedim(1, -1))}

    def step(
        self,
        step: Step,
        model: Model,
        pretrained: Pretrained | HostedModel,
        prompts: EncodedPrompts,
        settings: SamplingSettings,
        samples: Tensor | None = None,
    ) -> Tensor:
        host, node_id = step.run.host, step.node_id

        def progress(done: int, total: int) -> None:
            host.progress(node_id, done, total)

        if isinstance(model, HostedNetwork):
            images = hosted_sampling.sample_prompts(
                model, prompts, settings, check=host.check_interrupted, progress=progress
            )
        else:
            assert isinstance(model, PretrainedModel)
            assert isinstance(pretrained, Pretrained)
            guided = prompts.negative is not None
            made = step.keep(lambda: sampling_pipeline(pretrained, model, guided))
            images = sample_prompts(model, made, prompts, settings, check=host.check_interrupted, progress=progress)
        step.show("samples", lambda: sheet(images, settings.count))
        return images


def sheet(images: Tensor, count: int) -> Image:
    """One row a prompt, ``count`` images in each."""
    return grid(images, count)


def lines_of(prompts: str) -> list[str]:
    """One prompt a line; empty lines do not count."""
    return [line.strip() for line in prompts.splitlines() if line.strip()]


DRAWN_LATER = (
    "Optimizer Step draws these samples, so there are none yet; wire its model into another Sample Prompts, whose "
    "samples go nowhere"
)


def check_that_they_fit(model: Stream, pipeline: Pretrained | HostedModel) -> None:
    """Raises ValueError where the pipeline is not that of the model, before anything is loaded."""
    if model.about.hosted is not None or isinstance(pipeline, HostedModel):
        if not isinstance(pipeline, HostedModel) or model.about.family != pipeline.family:
            raise ValueError("pipeline: it is of another model; wire that of the same Train ComfyUI Model")
        return
    trained: Pretrained | None = model.about.pretrained
    if trained is None:
        raise ValueError("model: this one was made from scratch and reads no prompts; use Sample Images")
    if trained.info.family != pipeline.info.family:
        raise ValueError(
            f"pipeline: it is of {pipeline.info.kind.title}, and the model is {trained.info.kind.title}; wire the "
            "pipeline of the same Load Pretrained"
        )


def is_trained_with(prompt: Mapping[str, Any], node_id: str) -> bool:
    """Whether an output of that node leads to an Optimizer Step, which then says when samples are drawn."""
    readers = [name for name, node in prompt.items() if reads(node, node_id)]
    return any(prompt[name]["class_type"] == OptimizerStep.NODE_ID or is_trained_with(prompt, name) for name in readers)


def reads(node: Mapping[str, Any], node_id: str) -> bool:
    """Whether an input of this node of an API graph is a link ``[node_id, slot]``."""
    return any(isinstance(value, list) and value[:1] == [node_id] for value in node["inputs"].values())

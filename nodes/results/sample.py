"""Images from the model, while it trains and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from ...diffusion import seeds
from ...diffusion.rollouts.guidance import Guidance
from ...diffusion.schedules import Schedule
from ...diffusion.solvers import SOLVERS, Solver, solver
from ...files.whole import whole_or_nothing
from ...hosts.current import current_host
from ...hosts.device import choose_device, free_memory
from ...models.model import NO_CLASS, Model
from ...runs.pictures.kept import name_of
from ...runs.pictures.preview import Colours, colours_of, picture_of_latents, to_rgb
from ...runs.sampling import parse_labels, sample
from ...training.forward import training_mode
from ...training.stream import Run, Step, Stream
from ..base import CATEGORY, MODEL, SAMPLES, SCHEDULE, StepNode, shown
from ..inputs import UNIQUE_ID, choice, integer, line, number, seed, wire
from ..models.model import check_guidance

TIME_SHIFT = number(
    0.0,
    0.0,
    200.0,
    1.0,
    "Tell the network a timestep lower by so much than the image has: makes up for what few steps lose of contrast and "
    "detail, for nothing. 0 is off; try 20 with 8 steps.",
    advanced=True,
)


class SampleImages(StepNode):
    NODE_ID = "RolloutSampleImages"
    DISPLAY_NAME = "Sample Images"
    CATEGORY = f"{CATEGORY}/results"
    DESCRIPTION = (
        "Makes images with the model. Wire samples into Optimizer Step to see them while it trains, always from the "
        "same noise. A model that has weights already (from Load Model or Optimizer Step) is sampled right away."
    )
    SEARCH_ALIASES = ("generate", "validation", "ksampler", "unipc", "euler", "sampler", "preview")
    RETURN_TYPES = (SAMPLES, "IMAGE")
    RETURN_NAMES = ("samples", "images")
    OUTPUT_TOOLTIPS = (
        "For Optimizer Step, or for another Sample Images that shall be drawn at the same time.",
        "The images, for Save Image, Preview Image and others in ComfyUI; only of a model that has weights already.",
    )
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire(MODEL, "The model to sample from."),
                "schedule": wire(SCHEDULE, "The noise schedule that it is trained with."),
                "steps": integer(20, 1, 1000, "Solver steps from noise to image."),
                "sampler": choice(SOLVERS, "euler", "The solver that denoises."),
                "order": integer(2, 1, 3, "Order of unipc and dpm; the others ignore it."),
                "labels": line(
                    "", "Which classes: 0-9, or 1, 3, 5. Empty means all. Not used for a model without classes."
                ),
                "count": integer(4, 1, 256, "Images per class; in all, for a model without classes."),
                "seed": seed("Which noise to start from."),
            },
            "optional": {
                "samples": wire(SAMPLES, "Another Sample Images, to be drawn at the same time."),
                "guidance": number(
                    1.0,
                    1.0,
                    30.0,
                    0.5,
                    "Classifier-free guidance: more of the class, less variety. 1 is off; above, each step asks the "
                    "network twice, and the model needs a null class that label_dropout has trained.",
                ),
                "time_shift": TIME_SHIFT,
            },
            "hidden": {**UNIQUE_ID, "prompt": "PROMPT"},
        }

    def build(
        self,
        unique_id: str,
        model: Stream,
        labels: str,
        sampler: str,
        order: int,
        prompt: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> dict[str, Any]:
        if model.about.family:
            raise ValueError("model: a pretrained model reads prompts; use Sample Prompts for it")
        chosen = parse_labels(labels, model.about.classes) if model.about.classes else []
        if inputs.get("guidance", 1.0) != 1:
            check_guidance(model.about)
        inputs |= {"model": model, "labels": chosen, "solve": solver(sampler, order)}
        stream = self.stream(unique_id, inputs)
        about = f"{sampler}_{inputs['steps']}_steps_seed_{inputs['seed']}"
        if not model.about.has_weights:
            return {"ui": {}, "result": (stream, no_images(prompt, unique_id, UNTRAINED))}
        ui, latents = draw_now(stream, about, partial(self.picture, labels=chosen, count=inputs["count"]))
        return {"ui": ui, "result": (stream, to_rgb(latents).movedim(1, -1))}

    @staticmethod
    def picture(latents: Tensor, labels: list[int], count: int, colours: Colours = None) -> Image:
        """One column a class, or as square as it can be."""
        columns = len(labels) or max(1, round(len(latents) ** 0.5))
        if labels:
            latents = latents.unflatten(0, (len(labels), count)).transpose(0, 1).flatten(0, 1)
        return picture_of_latents(latents, columns, len(latents), colours)

    def step(
        self,
        step: Step,
        model: Model,
        schedule: Schedule,
        solve: Solver,
        steps: int,
        labels: list[int],
        count: int,
        seed: int,
        samples: Tensor | None = None,
        guidance: float = 1.0,
        time_shift: float = 0.0,
    ) -> Tensor:
        told = torch.tensor(labels, device=step.run.device).repeat_interleave(count)
        latents = sample(
            model,
            schedule,
            solve,
            count=len(told) or count,
            steps=steps,
            conditioning={"label": told} if labels else {},
            generator=seeds.generator(seed, "samples"),
            observe=lambda number, x: step.run.host.check_interrupted(),
            guidance=Guidance(guidance, negative={"label": told.new_tensor([NO_CLASS])}),
            time_shift=time_shift,
        )
        step.show("samples", lambda: self.picture(latents, labels, count, colours_of(step.run)))
        return latents


IMAGES = 1
"""The output with the images."""

UNTRAINED = (
    "this model is not trained yet, so there are none; wire the model that Optimizer Step gives into another Sample "
    "Images"
)


def no_images(prompt: Mapping[str, Any] | None, node_id: str, why: str) -> Any:
    """What goes out as images where there are none yet. Raises ValueError where some node of the prompt reads them."""
    if is_read(prompt or {}, str(node_id), IMAGES):
        raise ValueError(f"images: {why}")
    return current_host().nothing(f"images: {why}")


def is_read(prompt: Mapping[str, Any], node_id: str, output: int) -> bool:
    """Whether some node of an API graph reads that output."""
    return any([node_id, output] in node["inputs"].values() for node in prompt.values())


def draw_now(stream: Stream, about: str, picture: Callable[[Tensor], Image]) -> tuple[dict[str, Any], Tensor]:
    """Draw samples outside a training run, keep their picture, and say what the node shows; the samples too.

    ``about`` goes into the file's name, so that pictures of other settings are other files.
    """
    host = current_host()
    host.make_room()
    # Others that are wired in have made their own pictures already.
    alone = replace(stream, inputs={**stream.inputs, "samples": None})
    with training_mode():
        run = Run(alone, device=choose_device(host.device), host=host)
        samples: Tensor = Step(run, 0).value(alone)
    del run
    free_memory()  # of the network, before others want it
    path = host.output_folder / "samples" / f"node_{name_of(stream.node_id)}_{about}.png"
    with whole_or_nothing(path) as unfinished:
        picture(samples).save(unfinished, format="png")
    return shown(host, path), samples

"""Images for prompts, by a pretrained family's own diffusers pipeline around the very network that is being trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor, nn

from ..data.encodings.encoders import PretrainedEncoders
from ..data.reading.pictures import read_image
from ..diffusion.schedules import DDPM
from ..diffusion.solvers import Conditioning
from ..diffusion.time_shift import pipeline_told_lower
from ..models.families import PretrainedModel
from ..models.families.vae import tile_if_large
from ..models.loading.load import load_parts
from ..models.loading.pretrained import Pretrained
from ..models.quiet import quiet


@dataclass(frozen=True)
class SamplingSettings:
    """How prompts become images."""

    steps: int = 28
    guidance: float = 5.0
    """How strongly the images follow the prompt; 1 = not guided, so that the negative prompt is not asked for."""
    width: int = 0
    """In pixels; 0 = what the model was made for."""
    height: int = 0
    count: int = 1
    """Images a prompt."""
    seed: int = 0
    """The first image of each prompt starts from this seed, the next from the next; diffusers draws the same noise."""
    time_shift: float = 0.0
    """The network is told a timestep lower by so much (0..1000) than the latents have (arXiv 2305.15583)."""


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """What the network is told for each prompt, on the CPU: no text encoder is needed any more."""

    positive: tuple[Conditioning, ...]
    """One for each prompt, each tensor (1, ...)."""
    negative: tuple[Conditioning, ...] | None
    """One for each prompt; None where the guidance does without."""
    controls: tuple[Image, ...] = ()
    """The picture that each prompt changes, for a model that edits."""


def check_size(pretrained: Pretrained, width: int, height: int) -> None:
    """Raises ValueError where the family cannot make images of this size; 0 is the size it was made for."""
    kind, step = pretrained.info.kind, PretrainedEncoders(pretrained).multiple
    if (width or height) and not takes(pipeline_class(pretrained), "width"):
        raise ValueError(f"width, height: {kind.title} makes images of one size only; write 0 for both")
    for name, side, nearest in unfit_sides(step, width, height):
        raise ValueError(f"{name} {side} must be a multiple of {step} for {kind.title}: {nearest} is the nearest")


def unfit_sides(step: int, width: int, height: int) -> Iterator[tuple[str, int, int]]:
    """Which sides are no multiple of ``step``: the name, the side, and the nearest that is one."""
    for name, side in (("width", width), ("height", height)):
        if side % step:
            yield name, side, max(1, round(side / step)) * step


def pipeline_class(pretrained: Pretrained) -> Any:
    return pretrained.info.kind.pipeline()


def takes(pipeline: Any, name: str) -> bool:
    """Whether a pipeline has a keyword argument of that name."""
    return name in inspect.signature(pipeline.__call__).parameters


def controls_for(pretrained: Pretrained, prompts: Sequence[str], paths: Sequence[str]) -> list[Image]:
    """The picture that each prompt changes: one for all of them, or one for each.

    Raises ValueError where there are others, where one cannot be read, and where the family takes none or needs one.
    """
    kind = pretrained.info.kind
    if paths and kind.control == "none":
        raise ValueError(f"control: {kind.title} makes pictures of words alone; clear it")
    if not paths and kind.control == "must":
        raise ValueError(f"control: {kind.title} changes pictures: name one, or one for each prompt")
    if len(paths) not in (0, 1, len(prompts)):
        raise ValueError(f"control: {len(paths)} pictures for {len(prompts)} prompts: name one, or one for each")
    try:
        read = [read_image(Path(path).expanduser()) for path in paths]
    except ValueError as error:
        raise ValueError(f"control: {error}") from error
    return read * len(prompts) if len(read) == 1 else read


def encode_prompts(
    pretrained: Pretrained, prompts: Sequence[str], negative: str | None, device: str, controls: Sequence[Image] = ()
) -> EncodedPrompts:
    """Load the text encoders, encode each prompt by itself so that none is padded for another, and let go of them.

    ``negative`` is encoded where the family's guidance asks for one; None = no guidance. Raises ValueError for a class
    that a class-conditional model does not know.
    """
    if not pretrained.info.kind.negative_prompts:
        negative = None
    seen = [[picture] for picture in controls] if pretrained.info.kind.sees_control else [[]] * len(prompts)
    with PretrainedEncoders(pretrained).text(device) as encode:
        positive = tuple(on_cpu(encode([text], pictures=see)) for text, see in zip(prompts, seen, strict=True))
        if negative is None:
            return EncodedPrompts(positive, None, tuple(controls))
        each = seen if pretrained.info.kind.sees_control else [[]]  # else one is told for all
        avoided = [on_cpu(encode([negative], negative=True, pictures=see)) for see in each]
    return EncodedPrompts(positive, tuple(avoided * (len(prompts) // len(avoided))), tuple(controls))


def on_cpu(conditioning: Conditioning) -> Conditioning:
    return {name: value.cpu() for name, value in conditioning.items()}


def sampling_pipeline(pretrained: Pretrained, model: PretrainedModel, guided: bool = True) -> Any:
    """The family's pipeline around this network, which stays where and what it is, with a VAE on the CPU.

    ``guided``: so is the network that guides, in a family that has one.
    """
    info = pretrained.info
    parts = ["vae", *([info.kind.guide_part] if guided and info.kind.guide_part else [])]
    pipeline: Any = load_parts(pretrained.source, info, parts, **{info.kind.network_part: model.network})
    if isinstance(info.schedule, DDPM):  # Load Pretrained may know better than the scheduler's settings
        pipeline.scheduler = scheduler_for(info.schedule, pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler_for(schedule: DDPM, scheduler: Any) -> Any:
    """The pipeline's scheduler, made anew with the settings of the training.

    One with zero terminal SNR must start where it was trained, at pure noise, hence trailing timesteps
    (arXiv 2305.08891, sections 3.1 and 3.3).
    """
    changed: dict[str, Any] = {"prediction_type": schedule.prediction}
    if schedule.zero_terminal_snr:
        changed |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return type(scheduler).from_config(scheduler.config, **changed)


@torch.no_grad()
def sample_prompts(
    model: PretrainedModel,
    pipeline: Any,
    prompts: EncodedPrompts,
    settings: SamplingSettings,
    *,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> Tensor:
    """Images (prompts * count, 3, H, W) in 0..1, on the CPU, those of a prompt side by side.

    ``check()`` is called before each forward, and what it raises ends the sampling. ``progress(done, images)``.
    """
    total = settings.count * len(prompts.positive)
    images: list[Tensor] = []
    tile_if_large(pipeline.vae, settings.width * settings.height)
    with model.evaluating(), checked(model.network, check), lent(pipeline, model):
        for place, positive in enumerate(prompts.positive):
            negative = prompts.negative[place] if prompts.negative else None
            control = prompts.controls[place] if prompts.controls else None
            for number in range(settings.count):
                random = torch.Generator().manual_seed((settings.seed + number) % 2**64)
                arguments = pipeline_arguments(model, pipeline, positive, negative, settings)
                arguments |= {"image": control} if control is not None else {}
                with pipeline_told_lower(pipeline, settings.time_shift):
                    made = pipeline(**arguments, generator=random, output_type="pt")
                images.append(first_images(made).float().cpu())
                progress(len(images), total)
    return torch.cat(images)


def first_images(made: Any) -> Tensor:
    """Images (B, 3, H, W) that a pipeline made, without alpha; of films (B, T, 3, H, W) the first."""
    images: Tensor | NDArray[Any] = made.frames[:, 0] if hasattr(made, "frames") else made.images
    if isinstance(images, Tensor):
        return images[:, :3]
    return torch.from_numpy(images).permute(0, 3, 1, 2)  # so DiT's of diffusers before 0.41 whatever it is asked for


def pipeline_arguments(
    model: PretrainedModel,
    pipeline: Any,
    positive: Conditioning,
    negative: Conditioning | None,
    settings: SamplingSettings,
) -> dict[str, Any]:
    """The pipeline's keyword arguments for one prompt."""
    negative = told(negative, model) if negative is not None else None
    arguments = model.sampling_arguments(told(positive, model), negative)
    # FLUX and Qwen-Image say guidance_scale for what a network is told, true_cfg_scale for guidance by a negative.
    guidance = "true_cfg_scale" if negative is not None and takes(pipeline, "true_cfg_scale") else "guidance_scale"
    arguments |= {guidance: settings.guidance, "num_inference_steps": settings.steps}
    sides = {"width": settings.width, "height": settings.height}
    if takes(pipeline, "max_area"):  # Kontext makes this many pixels, whatever the sides
        sides["max_area"] = settings.width * settings.height
    return arguments | {name: side for name, side in sides.items() if side}


def told(conditioning: Conditioning, model: PretrainedModel) -> Conditioning:
    """What the network is told, on its device and in what it computes in; a pipeline's latents follow this."""
    return model.told({name: value.to(model.device) for name, value in conditioning.items()})


@contextmanager
def checked(network: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """``check()`` is called before each forward of the network: not every pipeline calls back after its steps."""
    handle = network.register_forward_pre_hook(lambda *_: check())
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def lent(pipeline: Any, model: PretrainedModel) -> Iterator[None]:
    """The VAE, and what guides, are beside the network inside, and compute in the same; then they make room."""
    guide = getattr(pipeline, model.guide_part, None) if model.guide_part else None
    with quiet():  # diffusers warns of modules that would have to stay in float32, and names none
        pipeline.vae.to(model.device, model.dtype)
        if isinstance(guide, nn.Module):
            guide.to(model.device)
    try:
        yield
    finally:
        pipeline.vae.to("cpu")
        if isinstance(guide, nn.Module):
            guide.to("cpu")

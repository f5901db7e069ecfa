"""Images for prompts, by the host's own sampler around the very network that is being trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..data.native.encoders import HostedEncoders
from ..hosts.comfyui_model import decode_images, draw
from ..models.hosted import HostedModel, HostedNetwork
from .prompt_sampling import EncodedPrompts, SamplingSettings, on_cpu, unfit_sides

SIDE = {"BaseModel": 512}
"""The side in pixels of the images that a family was made for, where it is not 1024."""


def check_size(hosted: HostedModel, width: int, height: int) -> None:
    """Raises ValueError where the model cannot make images of this size; 0 is the size it was made for."""
    step = HostedEncoders(hosted).multiple
    for name, side, nearest in unfit_sides(step, width, height):
        raise ValueError(f"{name} {side} must be a multiple of {step} for this model: {nearest} is the nearest")


def encode_prompts(hosted: HostedModel, prompts: Sequence[str], negative: str | None) -> EncodedPrompts:
    """Encode each prompt by the host's CLIP; ``negative`` where guidance asks for one, None = no guidance."""
    told_guidance = hosted.facts.is_guided
    with HostedEncoders(hosted).text("cpu") as encode:
        positive = tuple(on_cpu(encode([prompt])) for prompt in prompts)
        asked = negative is not None and not told_guidance
        negatives = (on_cpu(encode([negative])),) * len(positive) if asked else None
    return EncodedPrompts(positive, negatives)


@torch.no_grad()
def sample_prompts(
    model: HostedNetwork,
    prompts: EncodedPrompts,
    settings: SamplingSettings,
    *,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> Tensor:
    """Images (prompts * count, 3, H, W) in 0..1, on the CPU, those of a prompt side by side.

    ``check()`` is called after each step, and what it raises ends the sampling. ``progress(done, images)``.
    """
    facts, vae = model.hosted.facts, HostedEncoders(model.hosted).vae
    made_for = SIDE.get(facts.family, 1024)
    size = ((settings.height or made_for) // facts.factor, (settings.width or made_for) // facts.factor)
    images: list[Tensor] = []
    for place, positive in enumerate(prompts.positive):
        for number in range(settings.count):
            samples = draw(
                model.patched,
                positive,
                prompts.negative[place] if prompts.negative else None,
                size=size,
                steps=settings.steps,
                guidance=settings.guidance,
                seed=settings.seed + number,
                check=check,
            )
            images.append(decode_images(vae, samples))
            progress(len(images), settings.count * len(prompts.positive))
    return torch.cat(images)

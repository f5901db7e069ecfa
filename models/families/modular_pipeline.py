"""A modular pipeline of diffusers as a plain one: the same parts, of which some may be absent, and encoded captions.

diffusers has a modular pipeline's steps, and nothing that runs them around a network of somebody else's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..loading.index import MODULAR_INDEX, read_index


class PlainPipeline:
    """Mixed into a plain pipeline of a modular one's parts, whose steps it then runs."""

    config_name = MODULAR_INDEX
    modular_class: str
    """diffusers' pipeline whose steps these are."""
    components: Mapping[str, Any]
    scheduler: Any
    _progress_bar_config: Mapping[str, Any]

    def blocks(self, encoded: bool, shown: bool) -> Mapping[str, Any] | None:
        """The steps by name, after the text's where captions come ``encoded``, and with those of a picture that is
        ``shown``; None for all that it has."""
        raise NotImplementedError

    def parts(self) -> dict[str, Any]:
        """What its steps ask beside its scheduler, as they ask it."""
        return {name: part for name, part in self.components.items() if name != "scheduler"}

    def running(self) -> AbstractContextManager[None]:
        """What its steps need around them."""
        return nullcontext()

    @classmethod
    def load_config(cls, folder: str, **_: Any) -> dict[str, Any]:
        return read_index(Path(folder))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        height: int = 1024,
        width: int = 1024,
        num_inference_steps: int = 50,
        guidance_scale: float = 4.0,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        image: Any = None,
    ) -> Any:
        """Images of captions in words, or of those that ``sampling_arguments`` of the family gives; ``image`` is the
        picture that shall change, in a family that is shown one."""
        import diffusers
        from diffusers.modular_pipelines.modular_pipeline import SequentialPipelineBlocks

        words = {"prompt": prompt, "negative_prompt": negative_prompt}
        encoded = {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds}
        blocks = self.blocks(prompt is None, image is not None)
        made = SequentialPipelineBlocks.from_blocks_dict(dict(blocks)) if blocks else None
        steps: Any = getattr(diffusers, self.modular_class)(made)
        there = {name: part for name, part in self.parts().items() if part is not None and hasattr(steps, name)}
        alone = prompt is None and negative_prompt_embeds is None
        guider = diffusers.ClassifierFreeGuidance(guidance_scale=1.0 if alone else guidance_scale)
        steps.update_components(**there, guider=guider)
        steps.scheduler = self.scheduler  # which may be none of diffusers' own
        steps.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        given = {**(encoded if prompt is None else words), "image": image}
        with self.running():
            images = steps(
                **{name: value for name, value in given.items() if value is not None},
                height=height,
                width=width,
                num_inference_steps=num_inference_steps,
                generator=generator,
                output_type=output_type,
                output="images",
            )
        return SimpleNamespace(images=images)

"""What all families of pretrained models share; the next family is one small file beside this one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from packaging.version import Version
from torch import Tensor, nn

from ...diffusion.schedules import Density, Schedule
from ...diffusion.solvers import Conditioning
from ...files.text import has_half_letters
from ...files.whole import read_object
from ..model import Model
from ..quiet import quiet
from .vae import Moments, downscaling, keep_from_overflowing, moments_of_all, moments_of_channels, tile_if_large

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin
    from PIL.Image import Image

Control = Literal["none", "may", "must"]
Attention = Literal["fixed", "masked", "any"]

CONTROL = "control"
"""The latents (B, C, H, W) of the pictures that are to be changed, in what the network is told."""


class PretrainedModel(Model):
    """The network of a diffusers pipeline.

    A family says which parts its pipeline has, what the network is told about an image, and how it is called: latents
    come in and go out as (B, C, H, W), levels come in as timesteps 0..1000, and the output is what the schedule says
    (velocity = noise - latents for flow matching). Packing, scaling of timesteps and a turned sign stay in here.
    """

    title: str
    """What people call the family."""
    pipeline_class: str
    """diffusers' pipeline, as found in its index."""
    since: str = ""
    """The first diffusers that has it; empty where all that requirements.txt allows do."""
    network_part: str = "transformer"
    """The pipeline's component that is trained: ``unet`` or ``transformer``."""
    guide_part: str = ""
    """The component, a network of the same kind, that sampling with guidance asks in place of a negative prompt."""
    text_parts: tuple[str, ...] = ()
    """The components that encode captions, in the pipeline's order; none for a family that knows class labels."""
    trainable_text_parts: tuple[str, ...] = ()
    """The text encoders that can be trained too; the family then has :meth:`embed`, and encodes captions' tokens."""
    parts_in_file: tuple[str, ...] = ()
    """Components that a file of the network brings along."""
    single_file_types: tuple[str, ...] = ()
    """What diffusers calls single-file checkpoints of this family."""
    original_mark: str = ""
    """What only original names of weights have in them, of a network whose others are mostly as diffusers has them."""
    density: Density = "uniform"
    """How training timesteps are drawn unless the user says otherwise, as diffusers' training example does."""
    patch: int = 2
    """Side of a patch in latent pixels: image sides are multiples of this times the VAE's factor."""
    packed: int = 1
    """Latent pixels that the network takes as one token with all their channels; 4 where the latents come packed."""
    clip_skips: tuple[int, ...] = (0,)
    """What clip_skip may be, 0 for what the family does anyway."""
    longest_text: int = 77
    """Tokens of a caption that reach the network, those that begin and end it included; less what is put around it."""
    reading_tokenizer: str = "tokenizer"
    """The tokenizer of the encoder that reads most of a caption."""
    unread: tuple[str, ...] = ("lm_head.",)
    """How the names of those weights of a text encoder begin that captions do not ask for: files may lack them."""
    negative_prompts: bool = True
    """Whether sampling with guidance asks the network about a negative prompt too; not if it is told the guidance."""
    told_guidance: bool = False
    """Whether the network was distilled to be told its guidance."""
    bases: tuple[str, ...] = ()
    """Hub ids of the originals among which a single file cannot tell which one completes it; one that always does."""
    guided_above: float = 1.0
    """The guidance from which on it does."""
    control: Control = "none"
    """Whether the network is shown a picture that it shall change, as latents CONTROL in its conditioning."""
    sees_control: bool = False
    """Whether the text encoder sees that picture too, so that a caption is encoded beside it."""
    vae_of_videos: bool = False
    """Whether the VAE takes films (B, 3, T, H, W), so that an image is a film of one frame."""
    attention: Attention = "fixed"
    """What can compute its attention: ``fixed``, only what it was written with; ``masked``, what can leave tokens out;
    or ``any`` kernel."""
    always_there: tuple[str, ...] = ()
    """Blocks of which the network uses parts beside calling them, so that they cannot wait elsewhere until then."""
    lora_targets: dict[str, tuple[str, ...]]
    """Presets of the layers that an adapter is put on, by name: ``attention``, ``all``; ends of module names."""

    @classmethod
    def too_new(cls) -> str:
        """Why the installed diffusers cannot make this family, and what helps, as one line; empty where it can."""
        installed = version("diffusers")
        if not cls.since or Version(installed).release >= Version(cls.since).release:
            return ""
        return (
            f"{cls.title} needs diffusers {cls.since} or newer, and {installed} is installed: "
            "pip install --upgrade diffusers"
        )

    def __init__(self, network: ModelMixin, guidance: float = 1.0) -> None:
        super().__init__(network)
        self.guidance = guidance
        """What a guidance-distilled network is told while it is trained; others do not ask."""
        self.text_encoders: tuple[nn.Module, ...] = ()
        """Those that are trained along with the network (see text_encoders.py), in the pipeline's order."""

    def __call__(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The output (B, C, H, W), in the network's own dtype."""
        return self.predict(x.to(self.dtype), timestep, self.told(conditioning))

    def told(self, conditioning: Conditioning) -> Conditioning:
        """What the network is told, in its own dtype; numbers that are no fractions, such as sizes, stay."""
        return {
            name: value.to(self.dtype) if value.is_floating_point() else value
            for name, value in self.read_anew(conditioning).items()
        }

    def read_anew(self, conditioning: Conditioning) -> Conditioning:
        """The conditioning as text encoders that are trained read its captions now; without them, as it is."""
        if not self.text_encoders:
            return conditioning
        if "tokens" not in conditioning:
            raise ValueError(
                "the captions were encoded without their tokens, which training text encoders needs: clear the cache, "
                "and run Encode Dataset again"
            )
        return {**conditioning, **self.embed(self.text_encoders, conditioning["tokens"])}

    @classmethod
    def embed(cls, encoders: Sequence[nn.Module], tokens: Tensor) -> Conditioning:
        """What the network is told about captions, with gradient, by the encoders of ``trainable_text_parts``.

        ``tokens`` (B, encoders, length) are their numbers, as :meth:`encode_captions` gives them.
        """
        raise NotImplementedError(f"the text encoders of {cls.title} cannot be trained")

    @abstractmethod
    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's output (B, C, H, W) at ``x`` (B, C, H, W) and ``timestep`` (B,), all in its own dtype."""

    @classmethod
    def pipeline(cls) -> Any:
        """diffusers' pipeline, or what is made of it where that does not take encoded captions."""
        import diffusers

        return getattr(diffusers, cls.pipeline_class)

    @classmethod
    def latent_channels(cls, network: Mapping[str, Any]) -> int:
        """Channels of the latents, from the network's settings."""
        return int(network["in_channels"]) // cls.packed

    @classmethod
    def scheduler(cls, home: Path) -> Mapping[str, Any]:
        """The settings of the scheduler in the pipeline's folder ``home``."""
        return read_object(home / "scheduler" / "scheduler_config.json")

    @classmethod
    def schedule(cls, schedule: Schedule, index: Mapping[str, Any]) -> Schedule:
        """The noise schedule that the scheduler's settings describe, where the family's pipeline knows better.

        ``index`` are the pipeline's own settings, of model_index.json.
        """
        return schedule

    @classmethod
    def few_steps(cls, schedule: Schedule, index: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
        """Whether this one was distilled to few sampling steps, which training undoes; from settings alone.

        Its pipeline says so, or comes with the sampler of such models (HiDream-I1 Dev and Fast).
        """
        return bool(index.get("is_distilled")) or "LCM" in str(index.get("scheduler"))

    @classmethod
    def countable(cls, network: nn.Module) -> None:
        """Have a network whose ways hang on numbers be gone through with tensors that have none."""

    @classmethod
    def own_parts(cls, home: Path) -> dict[str, Callable[[], Any]]:
        """How parts of the pipeline's folder ``home`` are loaded that diffusers would load with more than is needed."""
        return {}

    @classmethod
    def from_original(cls, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A network's weights by diffusers' names, of those by the original ones, where diffusers knows no way.

        What files have before these names is taken off (see loading/network_file.py).
        """
        raise NotImplementedError(f"diffusers knows the original names of {cls.title}")

    @classmethod
    def text_weights(cls, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A text encoder's file by transformers' names, where ComfyUI's files have others."""
        return weights

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in, which need not be what its adapters are kept in."""
        dtype: torch.dtype = self.network.dtype  # type: ignore[assignment]
        return dtype

    @classmethod
    def encode_captions(
        cls, pipeline: Any, captions: Sequence[str], negative: bool = False, pictures: Sequence[Image] = ()
    ) -> Conditioning:
        """What the network is told about these captions, each tensor (len(captions), ...), without gradient.

        ``pipeline`` is one of ``load_parts(source, info, cls.text_parts)``. ``negative`` = they are negative prompts,
        which some families read in another way; so they read the empty caption. ``pictures`` are those to be changed,
        one a caption, where the text encoder sees them.
        """
        for caption in captions:
            if has_half_letters(caption):  # tokenizers would blame its type
                raise ValueError(f"the text {caption!r} holds a part of a letter: write it anew, as UTF-8")
        with torch.no_grad(), quiet():
            if cls.sees_control:
                return cls.encode_pairs(pipeline, list(captions), list(pictures))
            return cls.encode_text(pipeline, list(captions), negative)

    @classmethod
    def encode_pairs(cls, pipeline: Any, captions: list[str], pictures: list[Image]) -> Conditioning:
        """How a family whose text encoder sees the pictures does what :meth:`encode_captions` promises."""
        raise NotImplementedError(f"the text encoder of {cls.title} sees no pictures")

    @classmethod
    @abstractmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """How the family does what :meth:`encode_captions` promises."""

    @classmethod
    def skip_layers(cls, pipeline: Any, clip_skip: int) -> None:
        """Have the text encoder end at another layer, where that is not what the family does anyway."""

    @classmethod
    def check_clip_skip(cls, clip_skip: int) -> None:
        """Raises ValueError where the family cannot read CLIP at this layer."""
        if clip_skip not in cls.clip_skips:
            can = ", ".join(map(str, cls.clip_skips))
            raise ValueError(
                f"clip_skip: {cls.title} is not read at layer {clip_skip} from the last; set it to one of these: {can}"
            )

    @classmethod
    def most_tokens(cls, pipeline: Any) -> int:
        """How many tokens of a caption reach the network; what is behind them is cut off."""
        return cls.longest_text

    @classmethod
    def count_tokens(cls, pipeline: Any, captions: Sequence[str]) -> list[int]:
        """How many tokens each caption has; ``pipeline`` needs its tokenizers only."""
        tokenizer = getattr(pipeline, cls.reading_tokenizer) or pipeline.tokenizer
        with quiet():
            return [len(tokenizer(text, truncation=False, verbose=False).input_ids) for text in captions]

    @classmethod
    def describe_size(cls, original: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> Conditioning:
        """What the network is told about one image's (height, width), its crop's (top, left) and its final size.

        A batch of one: each tensor is (1, ...), to be concatenated like those of :meth:`encode_captions` and to be
        merged with them (SDXL: ``time_ids`` (1, 6), whole numbers). Nothing for a family that is not told.
        """
        return {}

    @classmethod
    def encode_images(cls, vae: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, C, H / f, W / f), float32, of images (B, 3, H, W) in -1..1; the likeliest without a generator."""
        keep_from_overflowing(vae)
        tile_if_large(vae, images.shape[-2] * images.shape[-1])
        images = images.to(vae.dtype)
        distribution = vae.encode(images.unsqueeze(2) if cls.vae_of_videos else images).latent_dist
        latents = distribution.mode() if generator is None else distribution.sample(generator)
        latents = (latents.squeeze(2) if cls.vae_of_videos else latents).float()
        mean, scale = cls.moments(vae, latents)
        return (latents - mean) * scale

    @classmethod
    def decode_latents(cls, vae: Any, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), float32, in about -1..1 of latents."""
        keep_from_overflowing(vae)
        tile_if_large(vae, latents.shape[-2] * latents.shape[-1] * downscaling(vae.config) ** 2)
        latents = latents.float()
        mean, scale = cls.moments(vae, latents)
        latents = (latents / scale + mean).to(vae.dtype)
        images: Tensor = vae.decode(latents.unsqueeze(2) if cls.vae_of_videos else latents).sample
        return (images.squeeze(2) if cls.vae_of_videos else images).float()

    @classmethod
    def moments(cls, vae: Any, latents: Tensor) -> Moments:
        """What the VAE's ``latents`` (B, C, H, W) are freed of before the network sees them: of about unit variance."""
        return moments_of_channels(vae, latents) if cls.vae_of_videos else moments_of_all(vae)

    @classmethod
    @abstractmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        """The pipeline's keyword arguments for encoded prompts, in place of text; ``negative`` only with guidance."""


def prompt_arguments(
    positive: Conditioning, negative: Conditioning | None, **told: str | Callable[[Conditioning], Any]
) -> dict[str, Any]:
    """A pipeline's arguments by name: what the network is told of that name, or what is made of it.

    Of the negative the same, with ``negative_`` before the arguments' names.
    """
    given = {"": positive} | ({"negative_": negative} if negative else {})
    return {
        start + name: each[of] if isinstance(of, str) else of(each)
        for start, each in given.items()
        for name, of in told.items()
    }

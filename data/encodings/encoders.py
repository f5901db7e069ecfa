"""The encoders of a pretrained model: text encoders and VAE, each in memory only while it encodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ...diffusion.solvers import Conditioning
from ...files.whole import read_object
from ...hosts.device import free_memory
from ...models.families.pretrained import Control
from ...models.families.vae import downscaling
from ...models.loading.index import check_complete
from ...models.loading.load import load_parts, local_folder
from ...models.loading.pretrained import Pretrained
from ...models.loading.recognise import encoders_of, tokenizers_of
from ...models.loading.single_file import parts_in
from ...models.loading.source import Source
from ..reading.buckets import Size
from .cache import fingerprint, key_of

TEXT_FORMAT, IMAGE_FORMAT = 3, 2
"""What encoders' results consist of, by number. It is part of their keys in the cache, which outlives this program:
raise one whenever a family's ``encode_text`` or ``encode_images`` returns something else for the same input."""


EncodeText = Callable[..., Conditioning]
"""``encode(captions, negative=False, pictures=())``: what the network is told about them, each tensor (captions, ...);
``pictures`` only where the text encoder sees them."""


EncodeImages = Callable[[Tensor], Tensor]
"""Latents (B, C, H / f, W / f), float32, of images (B, 3, H, W) in -1..1."""


class Encoders(Protocol):
    """What turns captions and images into what a network is trained on."""

    family: str
    channels: int
    """Of the latents."""
    classes: int
    """Class labels that the network knows; 0 for one that reads text."""
    factor: int
    """How many pixels a latent is high and wide."""
    multiple: int
    """Image sides are multiples of this."""
    control: Control
    """Whether the network is shown a picture that it shall change."""
    sees_control: bool
    """Whether the text encoder sees that too."""

    @property
    def text_identity(self) -> str:
        """Changes with whatever changes the encoded text."""
        ...

    @property
    def image_identity(self) -> str:
        """Changes with whatever changes the latents."""
        ...

    def text(self, device: str) -> AbstractContextManager[EncodeText]:
        """The text encoders, in memory inside only."""
        ...

    def longer_than_read(self, captions: Sequence[str]) -> tuple[list[str], int]:
        """Those of which a part is cut off, and how many tokens are read. Loads tokenizers only."""
        ...

    def images(self, device: str) -> AbstractContextManager[EncodeImages]:
        """The VAE, in memory inside only."""
        ...

    def describe_size(self, original: Size, corner: tuple[int, int], size: Size) -> Conditioning:
        """What the network is told about an image's size, its crop's (top, left) and its final size, each (1, ...)."""
        ...


class PretrainedEncoders:
    """The encoders of a model that Load Pretrained knows. Nothing is loaded until it is needed."""

    def __init__(self, pretrained: Pretrained) -> None:
        self.pretrained, self.kind = pretrained, pretrained.info.kind
        source = pretrained.source
        self.home = local_folder(source.home)
        self.family, self.channels = pretrained.info.family, pretrained.info.channels
        self.classes = pretrained.info.classes
        self.control, self.sees_control = self.kind.control, self.kind.sees_control
        self.vae_config = read_object(vae_folder(source, self.home) / "config.json")
        self.factor = downscaling(self.vae_config)
        self.multiple = self.factor * self.kind.patch
        self.vae_source = replace(source, storage="fp32") if self.vae_config.get("force_upcast", True) else source
        # Where to find the weights is no part of it: a model that was moved or copied is the same model.
        texts = [identity(source, self.home, part) for part in self.kind.text_parts]
        others = [identity_of_path(path) for path in source.text_encoders]
        self.text_identity = key_of(TEXT_FORMAT, self.family, source.storage, source.clip_skip, texts, others)
        vae = identity_of_path(source.vae) if source.vae else identity(source, self.home, "vae")
        self.image_identity = key_of(IMAGE_FORMAT, self.family, self.vae_source.storage, vae)

    @contextmanager
    def text(self, device: str) -> Iterator[EncodeText]:
        held = [self._text_pipeline(device)]
        try:
            yield lambda captions, negative=False, pictures=(): self.kind.encode_captions(
                held[0], captions, negative, pictures
            )
        finally:
            held.clear()  # so that nobody has it any more, whoever still has the function
            free_memory()

    def _text_pipeline(self, device: str) -> Any:
        pipeline: Any = load_parts(self.pretrained.source, self.pretrained.info, self.kind.text_parts)
        for name in encoders_of(self.kind):
            if (encoder := getattr(pipeline, name)) is not None:  # SD3 does without T5
                encoder.to(device)
        return pipeline

    def longer_than_read(self, captions: Sequence[str]) -> tuple[list[str], int]:
        pipeline: Any = load_parts(self.pretrained.source, self.pretrained.info, tokenizers_of(self.kind))
        most = self.kind.most_tokens(pipeline)
        counts = self.kind.count_tokens(pipeline, captions)
        return [caption for caption, count in zip(captions, counts, strict=True) if count > most], most

    @contextmanager
    def images(self, device: str) -> Iterator[EncodeImages]:
        pipeline: Any = load_parts(self.vae_source, self.pretrained.info, ["vae"])
        held = [pipeline.vae.to(device)]
        del pipeline
        try:
            yield lambda images: self.kind.encode_images(held[0], images.to(device, held[0].dtype)).float()
        finally:
            held.clear()
            free_memory()

    def describe_size(self, original: Size, corner: tuple[int, int], size: Size) -> Conditioning:
        return self.kind.describe_size(original, corner, size)


def vae_folder(source: Source, home: Path) -> Path:
    """Where the settings of the VAE are: a VAE in a file of its own has the settings of the pipeline's."""
    if source.vae and Path(source.vae).is_dir():
        return Path(source.vae)
    check_complete(home, ["vae"])
    return home / "vae"


def identity(source: Source, home: Path, part: str) -> str:
    """A short name for one of a model's encoders: equal weights and settings have equal names."""
    if source.is_file and part in parts_in(source.path):
        return key_of(fingerprint(Path(source.path)), *settings_of(home / part))
    if Path(source.home).expanduser().is_dir():
        return identity_of_folder(home / part)
    return key_of(source.home, home.name, part)  # from the hub: its snapshot's folder is named by the commit


def identity_of_path(path: str) -> str:
    """A short name for what a file or a folder holds, or for a hub id."""
    if Path(path).is_dir():
        return identity_of_folder(Path(path))
    return fingerprint(Path(path)) if Path(path).is_file() else key_of(path)


def identity_of_folder(folder: Path) -> str:
    """A short name for the settings and weights in a folder; that of a part which is not there is always the same."""
    return key_of(*settings_of(folder), *map(fingerprint, sorted(folder.glob("*.safetensors"))))


def settings_of(folder: Path) -> list[str]:
    return [path.name + fingerprint(path) for path in sorted(folder.glob("*.json"))]

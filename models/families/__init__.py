"""The families of networks, one file each: what a caption becomes, how the network is called, how it samples."""

from ..model import Model, NewModel
from .anima import Anima
from .chroma import Chroma
from .class_conditional import ClassConditionalDiT
from .dit import DiT
from .ernie_image import ErnieImage
from .flux import Flux, FluxKontext
from .flux2 import Flux2Dev, Flux2Klein
from .flux3 import Flux3
from .hidream import HiDream
from .ideogram4 import Ideogram4
from .krea2 import Krea2
from .longcat_image import LongCatImage
from .lumina2 import Lumina2
from .pretrained import PretrainedModel
from .qwen_image import QwenImage
from .qwen_image_21 import QwenImage21
from .qwen_image_edit import QwenImageEdit, QwenImageEditPlus
from .sd import StableDiffusion
from .sd3 import StableDiffusion3
from .sdxl import StableDiffusionXL
from .unet import UNet
from .wan import Wan
from .zimage import ZImage

FAMILIES: dict[str, type[NewModel]] = {"unet": UNet, "dit": DiT}
"""Families that can be made from a few numbers, by the name that the New Model node shows."""

PRETRAINED: dict[str, type[PretrainedModel]] = {
    "sd": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sd3": StableDiffusion3,
    "flux": Flux,
    "flux_kontext": FluxKontext,
    "dit": ClassConditionalDiT,
    "lumina2": Lumina2,
    "zimage": ZImage,
    "flux2_dev": Flux2Dev,
    "flux2_klein": Flux2Klein,
    "flux3": Flux3,
    "qwen_image": QwenImage,
    "qwen_image_edit": QwenImageEdit,
    "qwen_image_edit_plus": QwenImageEditPlus,
    "qwen_image_21": QwenImage21,
    "krea2": Krea2,
    "ideogram4": Ideogram4,
    "anima": Anima,
    "ernie_image": ErnieImage,
    "hidream": HiDream,
    "chroma": Chroma,
    "longcat_image": LongCatImage,
    "wan": Wan,
}
"""Families that Load Pretrained knows, by their short name."""


def offered() -> dict[str, type[PretrainedModel]]:
    """Those of PRETRAINED that the installed diffusers has."""
    return {family: kind for family, kind in PRETRAINED.items() if not kind.too_new()}


def known_families() -> str:
    """What Load Pretrained can load here, for messages; and what it could with a newer diffusers."""
    here = ", ".join(kind.title for kind in offered().values())
    newer = [f"{kind.title} (diffusers {kind.since} or newer)" for kind in PRETRAINED.values() if kind.too_new()]
    return here + (f"; with an upgrade also {', '.join(newer)}" if newer else "")


__all__ = ["FAMILIES", "PRETRAINED", "DiT", "Model", "NewModel", "PretrainedModel", "UNet", "known_families", "offered"]

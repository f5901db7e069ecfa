"""The families of pretrained models whose networks are all different: a new one is tried without being named here."""

from comfyui_rollout.models.adapters.formats import UNPROVEN
from comfyui_rollout.models.families import PRETRAINED


def is_of_another(kind):
    """Whether a family calls the network of another one, with a picture to change beside it."""
    others = (other for other in PRETRAINED.values() if other is not kind)
    return any(issubclass(kind, other) and kind.network_class == other.network_class for other in others)


READERS = [family for family, kind in PRETRAINED.items() if kind.text_parts and not is_of_another(kind)]
"""Those that read captions."""

FORMATS = ("diffusers", "comfyui", "kohya")
WRITTEN = [
    (family, format)
    for family in READERS
    for format in FORMATS
    if format == "diffusers" or PRETRAINED[family].network_class not in UNPROVEN
]
"""They and the formats in which their LoRAs are written."""

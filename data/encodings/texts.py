"""What a network is told about a batch of captions, whose texts may be of several lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...diffusion.solvers import Conditioning, has_masks
from ...models.families.clip import alike
from ...models.ragged import collate, join


def concatenated(told: list[Conditioning]) -> Conditioning:
    """What the network is told about a batch of captions of several lengths.

    Those with a mask are padded, which it says; the windows of CLIP are repeated until they are as many; and of what
    ComfyUI's models are told the sizes are kept.
    """
    if has_masks(told[0]):
        return join(told)
    if len({one["text"].shape[1:] for one in told if "text" in one}) > 1:
        told = alike(*told)
    return collate(told)


Shapes = Mapping[str, tuple[int, ...]]
"""By name, of a part of a batch, without its number of items."""


def shapes_of(told: Conditioning) -> Shapes:
    return {name: tuple(value.shape[1:]) for name, value in told.items()}


def beside_others(told: Conditioning, shapes: Sequence[Shapes]) -> Conditioning:
    """What the items of a part are told, as it is in the whole batch, of whose parts these are the shapes.

    Texts are as long as if all stood in one batch: what goes by their length, such as which chains fit, is then the
    same in every process, and as in a single one.
    """
    own = shapes_of(told)
    others = [each for each in dict.fromkeys(tuple(shape.items()) for shape in shapes) if dict(each) != own]
    if not others:
        return told
    count = len(told["text"])
    absent = [{name: told[name].new_zeros(count, *shape) for name, shape in each} for each in others]
    return {name: value[:count] for name, value in concatenated([told, *absent]).items()}

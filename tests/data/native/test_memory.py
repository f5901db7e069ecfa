"""Data sets that are in memory already."""

import pytest
import torch
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.data.native.memory import Item, MemoryDataset, cut_to, shrink


def told(length):
    return {"text": torch.full((1, length, 2), float(length))}


def items():
    sizes = [(4, 4), (4, 6), (4, 4)]
    return [Item(torch.full((3, *size), float(place)), told(place + 1), f"{place}") for place, size in enumerate(sizes)]


def draw(dataset, numbers):
    return dataset.batch(numbers, ItemGenerators(0, "test", 0, len(numbers)))


def test_batches_hold_their_items():
    """Latents, texts of unequal length and captions, in order; repeats are the same items."""
    batch = draw(MemoryDataset("x", items(), "toy"), [2, 0, 3])
    assert batch.latents[:, 0, 0, 0].tolist() == [2.0, 0.0, 0.0]
    assert batch.captions == ("2", "0", "0")
    assert batch.conditioning["text.sizes"].tolist() == [[3, 2], [1, 2], [1, 2]]
    assert batch.mask is None


def test_sizes_have_batches_of_their_own():
    """As often as they have items; one size needs no groups."""
    info = MemoryDataset("x", items(), "toy", repeats=2).info
    assert [(group.name, group.items, group.count) for group in info.groups] == [("4x4", (0, 2), 4), ("4x6", (1,), 2)]
    assert (info.count, info.channels, info.size, info.family) == (6, 3, None, "toy")
    alike = MemoryDataset("x", [items()[0], items()[2]], "toy").info
    assert (alike.groups, alike.size) == ((), 4)


def test_texts_are_dropped():
    """By each item's own generator, as often as asked."""
    dataset = MemoryDataset("x", [items()[0]], "toy", dropped=told(7), dropout=0.3)
    batch = draw(dataset, [0] * 400)
    dropped = [caption == "" for caption in batch.captions]
    assert 80 < sum(dropped) < 160
    assert (batch.conditioning["text.sizes"][:, 0] == 7).tolist() == dropped
    with pytest.raises(ValueError, match="caption_dropout: nothing says what an empty caption is"):
        MemoryDataset("x", items(), "toy", dropout=0.1)


def test_masks_come_where_there_is_one():
    """An item without one counts everywhere."""
    first = items()[0]
    dataset = MemoryDataset("x", [first, Item(first.latents, first.told, mask=torch.zeros(1, 4, 4))], "toy")
    assert draw(dataset, [0, 1]).mask.mean((1, 2, 3)).tolist() == [1.0, 0.0]


def test_images_are_cut_to_what_fits():
    """The middle is kept; too small an image is refused."""
    image = torch.arange(5.0).expand(1, 4, 5)
    assert cut_to(image, 2)[0, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert cut_to(torch.zeros(3, 70, 50), 16).shape == (3, 64, 48)
    with pytest.raises(ValueError, match="images: one of 5 x 4 is smaller than 8 pixels"):
        cut_to(image, 8)


def test_masks_shrink_to_latents():
    """Each latent has the share of its pixels."""
    mask = torch.zeros(1, 8, 8)
    mask[:, :, 2:] = 1
    assert shrink(mask, (2, 2))[0].tolist() == [[0.5, 1.0], [0.5, 1.0]]

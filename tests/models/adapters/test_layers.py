"""Joining and taking apart adapters of layers."""

import pytest
import torch
from comfyui_rollout.models.adapters.layers import DOWN, MAGNITUDE, UP, LayerAdapter, fuse, peft_scale, split, turn


def lora(out, rank, scale, seed, inputs=6, magnitude=False):
    generator = torch.Generator().manual_seed(seed)
    weights = {DOWN: torch.randn(rank, inputs, generator=generator), UP: torch.randn(out, rank, generator=generator)}
    if magnitude:
        weights[MAGNITUDE] = torch.rand(out, generator=generator)
    return LayerAdapter(weights, scale)


def loha(out, rank, scale, seed, inputs=6):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": (out, rank), "b": (rank, inputs)}
    names = [(f"hada_{first}_{second}", size) for first in ("w1", "w2") for second, size in sizes.items()]
    return LayerAdapter({name: torch.randn(size, generator=generator) for name, size in names}, scale)


def delta(part):
    if part.kind == "loha":
        first, second = (part.weights[f"{name}_a"] @ part.weights[f"{name}_b"] for name in ("hada_w1", "hada_w2"))
        return part.scale * first * second
    return part.scale * part.weights[UP] @ part.weights[DOWN]


def test_a_joined_adapter_adds_what_its_parts_add():
    """Whatever their ranks and scales: B stand on the diagonal."""
    parts = [lora(4, 2, 0.5, 0), lora(3, 1, 2.0, 1), lora(5, 3, 1.5, 2)]
    joined = fuse(parts, [4, 3, 5], 6)
    assert joined.rank == 6
    torch.testing.assert_close(delta(joined), torch.cat([delta(part) for part in parts]))


def test_a_part_without_adapter_stays_as_it_is():
    """Only q and v are trained, as in the first paper: k gets zeros."""
    query, value = lora(4, 2, 0.5, 0), lora(4, 2, 0.5, 1)
    joined = fuse([query, None, value], [4, 4, 4], 6)
    torch.testing.assert_close(delta(joined), torch.cat([delta(query), torch.zeros(4, 6), delta(value)]))


def test_taking_apart_finds_the_parts_again():
    """No rank is added by writing and reading."""
    parts = [lora(4, 2, 0.5, 0, magnitude=True), lora(3, 1, 0.5, 1, magnitude=True)]
    back = split(fuse(parts, [4, 3], 6), [4, 3])
    for part, again in zip(parts, back, strict=True):
        assert part.weights.keys() == again.weights.keys()
        assert all(torch.equal(part.weights[name], again.weights[name]) for name in part.weights)


def test_a_joined_adapter_of_others_is_shared_by_its_parts():
    """kohya's q, k and v have one A: each part gets all of it."""
    joined = lora(12, 2, 0.5, 0)
    back = split(joined, [4, 4, 4])
    assert [part.rank for part in back] == [2, 2, 2]
    torch.testing.assert_close(torch.cat([delta(part) for part in back]), delta(joined))


def test_hadamard_products_are_joined_and_taken_apart():
    """Rows of outputs stay apart in them, whatever their ranks and scales; parts without one have no change."""
    parts = [loha(4, 2, 0.5, 0), None, loha(3, 3, 2.0, 1)]
    joined = fuse(parts, [4, 2, 3], 6)
    assert (joined.kind, joined.rank) == ("loha", 5)
    torch.testing.assert_close(delta(joined), torch.cat([delta(parts[0]), torch.zeros(2, 6), delta(parts[2])]))
    back = split(joined, [4, 2, 3])
    assert [part and part.rank for part in back] == [2, None, 3]
    for part, again in ((parts[0], back[0]), (parts[2], back[2])):
        torch.testing.assert_close(delta(again), delta(part))
    torch.testing.assert_close(delta(turn(parts[0])), torch.cat(delta(parts[0]).chunk(2)[::-1]))


def test_a_part_that_nothing_reaches_had_no_adapter():
    """It was left out when the others were joined."""
    query = lora(4, 2, 0.5, 0)
    first, second = split(fuse([query, None], [4, 4], 6), [4, 4])
    torch.testing.assert_close(delta(first), delta(query))
    assert second is None


def test_an_untrained_adapter_keeps_its_rank():
    """All B are zero: nothing says which ranks belong to which part."""
    empty = LayerAdapter({DOWN: torch.ones(2, 6), UP: torch.zeros(8, 2)}, 1.0)
    assert [part.rank for part in split(empty, [4, 4])] == [2, 2]


def test_halves_change_places():
    """Twice is as it was."""
    part = lora(8, 2, 1.0, 0, magnitude=True)
    torch.testing.assert_close(delta(turn(part)), torch.cat(delta(part).chunk(2)[::-1]))
    assert torch.equal(turn(turn(part)).weights[MAGNITUDE], part.weights[MAGNITUDE])


def test_other_kinds_are_refused():
    """A Kronecker product of a joined layer is none of its parts'."""
    lokr = LayerAdapter({"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(2, 3)}, 1.0)
    with pytest.raises(ValueError, match="LoKr of 2 layers cannot be said in this file, where they are one: choose"):
        fuse([lokr, lokr], [4, 4], 6)
    with pytest.raises(ValueError, match="LoKr of 2 layers"):
        fuse([lora(4, 2, 1.0, 0), lokr], [4, 4], 6)
    with pytest.raises(ValueError, match="cannot be taken apart: continue a lora or loha"):
        split(lokr, [2, 2])
    with pytest.raises(ValueError, match="no place"):
        turn(lokr)
    with pytest.raises(ValueError, match="DoRA can be joined"):
        fuse([lora(4, 2, 1.0, 0, magnitude=True), None], [4, 4], 6)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 1.0),
        ({"r": 8, "lora_alpha": 4}, 0.5),
        ({"r": 4, "lora_alpha": 4, "use_rslora": True}, 2.0),
        ({"r": 8, "alpha": 2.0}, 0.25),
        ({"r": 8, "lora_alpha": 4, "rank_pattern": {"^a\\.b": 2}, "alpha_pattern": {"^a\\.b": 6}}, 3.0),
    ],
)
def test_the_scale_is_what_peft_computes(settings, scale):
    """LoRA, rsLoRA, the LyCORIS kinds, and layers with numbers of their own."""
    assert peft_scale("a.b", settings) == scale

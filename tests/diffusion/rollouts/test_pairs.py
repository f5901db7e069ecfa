"""Pairs of noise and the model's image of it, as they are kept and put into batches."""

import torch
from chained import batch_of, with_texts
from comfyui_rollout.diffusion.rollouts.pairs import Pairs, PairsByKind, packed
from comfyui_rollout.diffusion.schedules import FlowMatching


def test_pairs_have_texts_of_any_length():
    """Pairs of a short caption and of a long one are one collection, and sit in any batch of such captions."""
    pairs, batch = Pairs(6), batch_of(FlowMatching(), count=3, dtype=torch.float32)
    for length in (2, 5):
        told = with_texts(batch, length)
        pairs.add(packed(told.latents, told.noise, told.conditioning))
    assert len(pairs) == 6
    put = pairs.put_into(with_texts(batch, 3), 2, torch.Generator().manual_seed(0))
    assert put.conditioning["text"].shape == (3, 5, 2)
    assert put.conditioning["mask"].sum(1).tolist()[2] == 3


def test_restored_pairs_are_those_of_the_state_alone():
    """Pairs of an image size that came after the state are forgotten by a run that goes back to it."""
    pairs, small = PairsByKind(6), batch_of(FlowMatching(), count=3)
    pairs.of("small").add(packed(small.latents, small.noise, {}))
    state = pairs.state_dict()
    pairs.of("large").add(packed(small.latents, small.noise, {}))
    pairs.load_state_dict(state)
    assert (len(pairs.of("small")), len(pairs.of("large"))) == (3, 0)

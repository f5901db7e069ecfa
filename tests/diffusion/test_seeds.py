"""Random numbers that depend on their name only."""

import torch
from comfyui_rollout.diffusion import seeds


def test_derived_seeds_depend_on_the_whole_name_only():
    """A node's noise must not move because another seed, node or step was asked for before."""
    first = seeds.derive(7, "4", 12)
    others = [seeds.derive(8, "4", 12), seeds.derive(7, "5", 12), seeds.derive(7, "4", 13), seeds.derive(7, "41", 2)]
    assert seeds.derive(7, "4", 12) == first
    assert len({first, *others}) == 5
    assert all(0 <= seed < 2**63 for seed in [first, *others])


def test_seeds_stay_what_they_are():
    """A run of last year must be repeatable: this number may never change."""
    assert seeds.derive(0, "node", 1) == 8562921041991935442


def test_generator_repeats_itself():
    """Equal names give equal numbers."""
    draws = [torch.rand(3, generator=seeds.generator(1, "a")) for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(3, generator=seeds.generator(1, "b")))


def test_global_seed_is_lent_and_given_back():
    """Weight initialisation is fixed by the seed, and the user's own random numbers do not notice."""
    before = torch.get_rng_state()
    with seeds.global_seed(3):
        inside = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    with seeds.global_seed(3):
        assert torch.equal(torch.rand(2), inside)


def test_global_seed_comes_back_after_an_error():
    """A failing step leaves the global generator as it was."""
    before = torch.get_rng_state()
    try:
        with seeds.global_seed(3):
            torch.rand(1)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)

"""The plan of rollouts: what is drawn, and what that costs."""

import math

import pytest
import torch
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from hypothesis import given, settings
from hypothesis import strategies as st

STRATEGIES = ["uniform", "biased_early", "biased_late"]
SCHEDULE = DDPM("scaled_linear", "v_prediction")

plans = st.builds(
    RolloutPlan,
    max_step_offset=st.integers(0, 12),
    probability=st.floats(0, 1),
    ramp_steps=st.sampled_from([0, 7]),
    prob_start=st.floats(0, 1),
    prob_end=st.floats(0, 1),
    ramp_shape=st.sampled_from(["linear", "cosine"]),
    start_step=st.integers(0, 5),
    strategy=st.sampled_from(STRATEGIES),
    step_size=st.floats(0.1, 150),
    step_size_max=st.sampled_from([0.0, 150.0, 300.0]),
)


@settings(deadline=None)
@given(plans, st.lists(st.integers(0, 999), min_size=1, max_size=8), st.integers(0, 20), st.booleans())
def test_draws_stay_within_their_bounds(plan, timesteps, step, flow):
    """Lengths, sources and strides fit together and into the schedule, for every plan."""
    schedule = FlowMatching() if flow else SCHEDULE
    timestep = torch.tensor(timesteps, dtype=torch.float64)
    lengths, source, stride = plan.draw(timestep, schedule, step, torch.Generator().manual_seed(0))
    rolled = lengths > 0
    assert lengths.dtype == torch.int64
    assert ((lengths >= 0) & (lengths <= plan.max_step_offset)).all()
    assert (source >= timestep).all()
    assert (source <= schedule.noisy_timestep).all()
    assert torch.equal(source > timestep, rolled)
    assert torch.equal(stride > 0, rolled)
    largest = plan.step_size_max or plan.step_size
    assert ((stride[rolled] >= plan.step_size * (1 - 1e-12)) & (stride[rolled] <= largest * (1 + 1e-12))).all()
    # A rollout has no more steps than its way needs, and no step is longer than the stride.
    way = source - timestep
    assert (way <= lengths * stride + 1e-6).all()
    assert (way > (lengths - 1) * stride - 1e-6)[rolled].all()
    if not plan.active or plan.probability_at(step) == 0:
        assert not rolled.any()


@given(plans, st.integers(0, 30))
def test_the_probability_is_one_and_stays_within_the_ramp(plan, step):
    """Never before start_step, never outside what the user asked for."""
    chance = plan.probability_at(step)
    if step < plan.start_step or plan.max_step_offset == 0:
        assert chance == 0
    elif plan.ramp_steps:
        low, high = sorted([plan.prob_start, plan.prob_end])
        assert low - 1e-12 <= chance <= high + 1e-12
    else:
        assert chance == plan.probability
    assert chance <= plan.peak_probability + 1e-12


def test_lengths_are_recomputed_at_the_noisy_end():
    """Clamping the source leaves fewer steps, and none for an item that already is at the noisy end."""
    plan = RolloutPlan(max_step_offset=10, probability=1.0, strategy="biased_late", step_size=20.0)
    timestep = torch.tensor([999.0, 998.5, 980.0, 979.0, 938.0]).double().repeat(200)
    lengths, source, _ = plan.draw(timestep, SCHEDULE, 0, torch.Generator().manual_seed(0))
    longest = lengths.reshape(200, 5).amax(0)
    assert longest.tolist() == [0, 1, 1, 1, 4]
    assert source.reshape(200, 5).amax(0).tolist() == [999, 999, 999, 999, 999]


def test_the_ramp():
    """From prob_start (an explicit 0.0 is honoured, whatever probability says) to prob_end, from start_step on."""
    ramp = {"max_step_offset": 1, "probability": 0.9, "ramp_steps": 10, "start_step": 100, "prob_start": 0.0}
    linear, cosine = (RolloutPlan(**ramp, prob_end=0.5, ramp_shape=shape) for shape in ("linear", "cosine"))
    assert [linear.probability_at(step) for step in (0, 99, 100, 105, 110, 999)] == [0, 0, 0, 0.25, 0.5, 0.5]
    assert [cosine.probability_at(step) for step in (100, 105, 110)] == pytest.approx([0, 0.25, 0.5])
    assert cosine.probability_at(102) == pytest.approx(0.25 * (1 - math.cos(math.pi * 0.2)))
    falling = RolloutPlan(**(ramp | {"prob_start": 0.8}), prob_end=0.2)
    assert falling.probability_at(105) == pytest.approx(0.5)


def test_before_start_step_nothing_is_rolled_out():
    """Without a ramp too."""
    plan = RolloutPlan(max_step_offset=4, probability=1.0, start_step=10)
    assert [plan.probability_at(step) for step in (9, 10)] == [0, 1]


@pytest.mark.parametrize(("strategy", "mean"), [("uniform", 1 / 2), ("biased_early", 1 / 3), ("biased_late", 2 / 3)])
def test_strategies_have_their_means(strategy, mean):
    """uniform 1/2, biased_early 1/3, biased_late 2/3 of the longest rollout."""
    plan = RolloutPlan(max_step_offset=12, probability=1.0, strategy=strategy)
    lengths = plan.draw(torch.zeros(20_000).double(), SCHEDULE, 0, torch.Generator().manual_seed(0)).lengths.double()
    assert lengths.mean() == pytest.approx(12 * mean, abs=0.12)
    assert (lengths.min(), lengths.max()) == (0, 12)


def test_the_probability_is_the_share_of_chosen_items():
    """Each item is chosen on its own with the given chance (a drawn length of 0 is no rollout: 1 in 4 here)."""
    plan = RolloutPlan(max_step_offset=3, probability=0.4)
    lengths = plan.draw(torch.zeros(20_000).double(), SCHEDULE, 0, torch.Generator().manual_seed(0)).lengths
    assert (lengths > 0).double().mean() == pytest.approx(0.4 * 0.75, abs=0.01)


def test_strides_are_drawn_log_uniformly():
    """From 10 to 1000, half of the strides are below 100; without step_size_max all are the same."""
    plan = RolloutPlan(max_step_offset=1, probability=1.0, strategy="biased_late", step_size=10.0, step_size_max=1000.0)
    stride = plan.draw(torch.zeros(20_000).double(), SCHEDULE, 0, torch.Generator().manual_seed(0)).stride
    assert stride[stride > 0].log10().quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist() == pytest.approx(
        [1.5, 2, 2.5], abs=0.03
    )
    fixed = RolloutPlan(max_step_offset=1, probability=1.0, step_size=10.0)
    assert set(fixed.draw(torch.zeros(50).double(), SCHEDULE, 0, torch.Generator()).stride.tolist()) == {0.0, 10.0}


@pytest.mark.parametrize("strides", [{"step_size": 0.0}, {"step_size": -1.0}, {"step_size": 9.0, "step_size_max": 3.0}])
def test_impossible_strides_are_refused(strides):
    """A stride that goes nowhere would need infinitely many steps."""
    with pytest.raises(ValueError, match="step_size"):
        RolloutPlan(**strides)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_estimate_is_the_average_cost(strategy):
    """The expected forwards, computed from the distribution, are the mean over many drawn batches."""
    plan = RolloutPlan(max_step_offset=6, probability=0.3, strategy=strategy)
    cost = plan.forwards(batch=4, calls=2)
    generator = torch.Generator().manual_seed(0)
    lengths = plan.draw(torch.zeros(4 * 20_000).double(), SCHEDULE, 0, generator).lengths.reshape(-1, 4)
    assert cost.expected == pytest.approx(2 * lengths.amax(1).double().mean().item(), abs=0.1)
    assert cost.samples == pytest.approx(2 * lengths.sum(1).double().mean().item(), abs=0.25)
    assert cost.worst == 12


@pytest.mark.parametrize(
    "stride", [{"step_size": 300.0}, {"step_size": 1000.0}, {"step_size": 5, "step_size_max": 900}]
)
def test_the_estimate_knows_the_noisy_end(stride):
    """A rollout of long steps has room for few: what it costs is said as it will be, not as if levels had no end."""
    plan = RolloutPlan(max_step_offset=10, probability=0.6, **stride)
    cost, generator = plan.forwards(8, schedule=SCHEDULE), torch.Generator().manual_seed(1)
    timestep = SCHEDULE.sample_timesteps(8 * 10_000, generator)
    lengths = plan.draw(timestep, SCHEDULE, 0, generator).lengths.reshape(-1, 8)
    assert cost.expected == pytest.approx(lengths.amax(1).double().mean().item(), rel=0.05)
    assert cost.samples == pytest.approx(lengths.sum(1).double().mean().item(), rel=0.05)
    assert lengths.max() <= cost.worst == min(10, math.ceil(1000 / plan.step_size))


def test_the_estimate_follows_the_ramp():
    """Nothing before the start; by default the most expensive step of the training."""
    plan = RolloutPlan(max_step_offset=4, ramp_steps=10, prob_end=1.0, start_step=5)
    assert plan.forwards(8, step=0) == (0, 0, 0)
    assert plan.forwards(8, step=10) < plan.forwards(8) == plan.forwards(8, step=15)
    assert RolloutPlan().forwards(8) == (0, 0, 0)


def test_the_lengths_of_chains_follow_the_strategy():
    """All places together have rolled as many steps as fresh rollouts of the strategy."""
    for strategy in ("biased_early", "uniform"):
        plan = RolloutPlan(max_step_offset=6, probability=1.0, step_size=1.0, strategy=strategy, rollout="persistent")
        generator = torch.Generator().manual_seed(0)
        levels = plan.chain_lengths(200_000, generator)
        ages = (torch.rand(200_000, generator=generator) * levels).floor().long()
        fresh = plan._lengths(200_000, generator)
        assert (ages.bincount(minlength=7) - fresh.bincount(minlength=7)).abs().max() < 1500
    late = RolloutPlan(max_step_offset=6, probability=1.0, strategy="biased_late", rollout="persistent")
    assert set(late.chain_lengths(100, generator).tolist()) == {7}

"""The rollout: what is drawn, what it costs, and that it touches nothing else."""

import math

import pytest
import torch
from comfyui_rollout.diffusion.rollout import Draw, RolloutPlan, longest_first, noisy_batch, ragged_grid, roll_out
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import SOLVERS, solver
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


def at(timesteps, schedule=SCHEDULE, shape=(1, 2, 2)):
    """A batch at these timesteps; its conditioning says who is who."""
    size = len(timesteps)
    generator = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(size, *shape, generator=generator) for _ in range(2))
    conditioning = {"item": torch.arange(size), "latents": latents, "noise": noise}
    return noisy_batch(latents, noise, torch.tensor(timesteps, dtype=torch.float64), schedule, conditioning)


def drawn(batch, lengths, stride=20.0):
    lengths = torch.tensor(lengths)
    stride = torch.where(lengths > 0, stride, 0.0).double()
    return Draw(lengths, batch.timestep + lengths * stride, stride)


class Counting:
    """A network that remembers with what it was called."""

    def __init__(self):
        self.sizes, self.items = [], []

    def __call__(self, x, timestep, conditioning):
        self.sizes.append(len(x))
        self.items.append(conditioning["item"].tolist())
        return 0.1 * x + 0.001 * timestep[:, None, None, None] + conditioning["item"][:, None, None, None]


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


def test_the_grid_goes_evenly_from_source_to_target():
    """Each column in its own number of steps, and exactly at both ends."""
    grid = ragged_grid(torch.tensor([90.0, 70.0]).double(), torch.tensor([30.0, 60.0]).double(), torch.tensor([3, 1]))
    assert grid.tolist() == [[90, 70], [70, 60], [50, 60], [30, 60]]


def test_longest_first_keeps_equals_in_their_order():
    """Items without a rollout are left out; the order is stable, so a run repeats exactly."""
    assert longest_first(torch.tensor([0, 2, 5, 0, 2])).tolist() == [2, 1, 4]


def test_without_a_rollout_nothing_happens():
    """The same batch object comes back and the model is not called: probability 0 cannot change a training."""
    batch, model = at([100.0, 500.0]), Counting()
    assert roll_out(model, batch, drawn(batch, [0, 0]), solver("unipc"), want_clean_output=True) is batch
    assert model.sizes == []


@pytest.mark.parametrize("name", SOLVERS)
def test_only_rolled_items_change_and_cost(name):
    """Each step is one batched forward on the items still under way; the others are untouched, bit for bit."""
    batch, model = at([100.0, 500.0, 300.0, 50.0]), Counting()
    solve = solver(name)
    rolled = roll_out(model, batch, drawn(batch, [2, 0, 3, 1]), solve)
    assert model.sizes == [size for size in (3, 2, 1) for _ in range(solve.calls)]
    assert rolled.rolled.tolist() == [True, False, True, True]
    assert torch.equal(rolled.x[1], batch.x[1])
    assert (rolled.drift > 0).tolist() == [True, False, True, True]
    assert rolled.stride.tolist() == [20, 0, 20, 20]
    assert rolled.source.tolist() == [140, 500, 360, 70]
    assert rolled.clean_output is None
    for kept in ("latents", "noise", "timestep", "teacher_forced", "conditioning", "schedule"):
        assert getattr(rolled, kept) is getattr(batch, kept)


@pytest.mark.parametrize("name", SOLVERS)
def test_conditioning_follows_its_item(point_mass, name):
    """After sorting by length each item still meets its own conditioning: else it would land on another's latents."""
    batch = at([100.0, 500.0, 300.0, 50.0, 700.0])
    rolled = roll_out(point_mass(SCHEDULE), batch, drawn(batch, [2, 5, 0, 1, 3]), solver(name))
    assert (rolled.x - batch.teacher_forced).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("lengths", "sizes", "item_forwards"),
    [
        ([2, 0, 0, 1], [2 + 2, 1], 5),  # two items roll out and there is room for their two passengers at once
        ([2, 1, 1, 0], [3, 1 + 3], 7),  # room only when two have arrived
        ([2, 2, 2, 2], [4, 4, 4], 12),  # no room: a forward of their own
    ],
)
def test_the_clean_output_rides_along(lengths, sizes, item_forwards):
    """No forward is larger than the batch, and there is an extra one only where nothing else had room."""
    batch, model = at([100.0, 500.0, 300.0, 50.0]), Counting()
    rolled = roll_out(model, batch, drawn(batch, lengths), solver("euler"), want_clean_output=True)
    assert model.sizes == sizes
    assert sum(model.sizes) == item_forwards
    # The same numbers as if it had been asked alone, and zero where nothing was rolled out.
    alone = Counting()(batch.teacher_forced, batch.timestep.float(), batch.conditioning)
    expected = torch.where(rolled.rolled[:, None, None, None], alone, 0)
    torch.testing.assert_close(rolled.clean_output, expected)
    # And the rollout itself does not notice.
    without = roll_out(Counting(), batch, drawn(batch, lengths), solver("euler"))
    torch.testing.assert_close(rolled.x, without.x)


def test_the_observer_sees_each_state():
    """From the source state (step 0) to the rolled-out latents, with the items' places in the batch."""
    batch, seen = at([100.0, 500.0, 300.0]), []
    draw = drawn(batch, [1, 0, 3])
    rolled = roll_out(Counting(), batch, draw, solver("unipc"), observe=lambda *frame: seen.append(frame))
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    assert all(order.tolist() == [2, 0] for _, _, order in seen)
    start = SCHEDULE.add_noise(batch.latents, batch.noise, draw.source)
    assert torch.equal(seen[0][1], start[[2, 0]])
    assert torch.equal(seen[-1][1], rolled.x[[2, 0]])
    assert torch.equal(seen[1][1][1], rolled.x[0])


def test_no_gradient_and_float32_under_a_low_precision_model():
    """The rollout keeps no graph, and its state stays float32 when the network computes in bfloat16."""
    weight = torch.nn.Parameter(torch.tensor(0.5))
    batch = at([100.0, 500.0])
    rolled = roll_out(lambda x, timestep, told: (weight * x).bfloat16(), batch, drawn(batch, [2, 1]), solver("unipc"))
    assert not rolled.x.requires_grad
    assert rolled.x.dtype == torch.float32


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("want_clean_output", [False, True])
def test_nothing_waits_for_the_device(name, want_clean_output):
    """With latents on a device that holds no numbers, any look at their values would fail."""
    batch = at([100.0, 500.0, 300.0, 950.0])
    absent = noisy_batch(
        batch.latents.to("meta"),
        batch.noise.to("meta"),
        batch.timestep,
        batch.schedule,
        {"item": torch.arange(4, device="meta")},
    )
    rolled = roll_out(
        lambda x, timestep, told: x * timestep[:, None, None, None],
        absent,
        drawn(batch, [2, 0, 3, 1]),
        solver(name, 3),
        want_clean_output=want_clean_output,
        observe=lambda step, x, order: None,
    )
    assert rolled.x.device.type == "meta"
    assert rolled.lengths.device.type == "cpu"


def test_rolling_out_keeps_masks_and_weights(generator):
    """They belong to the images, and come out as they went in."""
    latents, noise = torch.randn(2, 3, 1, 4, 4, generator=generator)
    timestep = torch.tensor([100.0, 400.0, 700.0]).double()
    mask, weight = torch.rand(3, 1, 4, 4, generator=generator), torch.tensor([1.0, 0.5, 1.0])
    batch = noisy_batch(latents, noise, timestep, FlowMatching(), {}, mask=mask, weight=weight)
    plan = RolloutPlan(max_step_offset=3, probability=1.0, step_size=20.0, strategy="biased_late")
    draw = plan.draw(timestep, batch.schedule, 0, generator)
    rolled = roll_out(lambda x, timestep, conditioning: x, batch, draw, solver("euler"))
    assert bool(rolled.rolled.any())
    assert rolled.mask is mask
    assert rolled.weight is weight

"""The rollout itself: what it changes, what it costs, and that it touches nothing else."""

import pytest
import torch
from comfyui_rollout.diffusion.rollout import Draw, RolloutPlan, longest_first, noisy_batch, ragged_grid, roll_out
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import SOLVERS, solver

SCHEDULE = DDPM("scaled_linear", "v_prediction")


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

"""The chains of a training: kept by kind of batch, and saved with its state."""

import pytest
import torch
from chained import PLAN, batch_of, with_texts
from comfyui_rollout.diffusion.chains import Keeper
from comfyui_rollout.diffusion.noisy_batch import predict
from comfyui_rollout.diffusion.rollout import RolloutPlan, noisy_batch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import ask, solver
from comfyui_rollout.diffusion.trajectory import fine_path, target_onto


def test_chains_of_another_size_wait(mixture):
    """A batch of another shape has chains of its own; the first ones go on when their shape comes again."""
    schedule, solve, keeper = FlowMatching(), solver("unipc"), Keeper()
    plan = RolloutPlan(max_step_offset=8, probability=1.0, step_size=1.0, rollout="persistent")
    model, seen = mixture(schedule), {2: [], 4: []}
    for update, size in enumerate((2, 4, 4, 2, 2)):
        latents, noise = torch.randn(2, 3, 1, size, size, dtype=torch.float64)
        batch = noisy_batch(latents, noise, schedule.sample_timesteps(3, torch.Generator()), schedule, {})
        seat = keeper.seat(batch, model, plan, solve, update, torch.Generator().manual_seed(update))
        seen[size].append(seat.lengths.max().item())
        predict(model, seat)
    assert seen == {2: [0, 1, 2], 4: [0, 1]}
    assert keeper.oldest(5) == 5
    assert Keeper().oldest(5) == 0


def test_a_training_goes_on_from_the_kept_chains(mixture):
    """In the middle of chains, after state_dict and back, every state is the same to the last bit."""
    schedule, solve, model = FlowMatching(), solver("unipc", 3), mixture(FlowMatching())

    def steps(keeper, updates):
        for update in updates:
            batch = batch_of(schedule, seed=update)
            seat = keeper.seat(batch, model, PLAN, solve, update, torch.Generator().manual_seed(update))
            predict(model, seat)
            yield seat

    one = Keeper()
    whole = list(steps(one, range(9)))
    first, second = Keeper(), Keeper()
    list(steps(first, range(4)))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    rest = list(steps(second, range(4, 9)))
    for kept, other in zip(whole[4:], rest, strict=True):
        assert torch.equal(kept.x, other.x)
        assert torch.equal(kept.timestep, other.timestep)
    assert all("." not in name for name in one.state_dict())


def test_a_loss_that_says_nothing_is_noticed(mixture):
    """Somebody else's loss would leave the chains where they are: training on the same states for ever."""
    schedule, keeper = FlowMatching(), Keeper()
    seat = keeper.seat(batch_of(schedule), None, PLAN, solver("euler"), 0, torch.Generator())
    ask(mixture(schedule), seat.x, seat.timestep, seat.conditioning)
    with pytest.raises(ValueError, match="no loss told them: wire the batch into Diffusion Loss"):
        keeper.seat(batch_of(schedule), None, PLAN, solver("euler"), 1, torch.Generator())


def test_nothing_waits_for_the_device():
    """With latents on a device that holds no numbers, any look at their values would fail."""
    schedule, keeper = FlowMatching(), Keeper()
    for update in range(4):
        latents = torch.empty(5, 1, 2, 2, device="meta")
        batch = noisy_batch(latents, latents, schedule.sample_timesteps(5, torch.Generator()), schedule, {})
        generator = torch.Generator().manual_seed(update)
        seat = keeper.seat(batch, None, PLAN, solver("unipc", 3), update, generator, remember=True)
        path = fine_path(lambda x, timestep, told: x, seat, reference_steps=1, solve=solver("heun"))
        seat.listener.landed(path.y)
        assert target_onto(path, seat, seat.solve).device.type == "meta"
        predict(lambda x, timestep, told: x, seat)


def test_texts_of_any_length_share_chains():
    """Captions are as long as their batch's longest: chains go on whatever that is, and keep their own text, padded.

    Else each length had chains of its own, which seldom go on. They are kept as such, too, also by the states of then.
    """
    schedule, solve, keeper = FlowMatching(), solver("euler"), Keeper()
    plan = RolloutPlan(max_step_offset=8, probability=0.67, step_size=1.0, from_noise=True, rollout="persistent")
    ages, lengths = [], []
    for update, length in enumerate((2, 5, 3, 4)):
        batch = with_texts(batch_of(schedule, count=3, dtype=torch.float32, seed=update), length)
        seat = keeper.seat(batch, None, plan, solve, update, torch.Generator().manual_seed(update))
        own = seat.conditioning["mask"].sum(1)
        assert torch.equal(seat.conditioning["text"].sum((1, 2)), 2 * own)
        ages.append(int(seat.lengths[0]))
        lengths.append((own[0].item(), own[-1].item()))
        predict(lambda x, timestep, told: x, seat)
    assert [age - ages[0] for age in ages] == [0, 1, 2, 3]
    assert [own for own, _ in lengths] == [2, 2, 2, 2]
    assert [other for _, other in lengths] == [2, 5, 3, 4]
    former = Keeper()
    (kind,) = keeper.chains
    former.load_state_dict({name.replace(kind, "text 5x2"): value for name, value in keeper.state_dict().items()})
    assert former.chains.keys() == {kind}


def test_rare_chains_come_to_their_end():
    """A place that is taken in one step of twenty has a chain of five steps for a hundred, and trains all levels."""
    plan = RolloutPlan(4, 0.05, step_size=200.0, rollout="persistent", from_noise=True)
    keeper, trained = Keeper(), []
    for update in range(3000):
        batch = batch_of(FlowMatching(), count=1, seed=update)
        seat = keeper.seat(batch, None, plan, solver("euler"), update, torch.Generator().manual_seed(update))
        trained += [round(float(seat.timestep[0]))] if seat.listener is not None else []
        predict(lambda x, timestep, told: x, seat)
    shares = [trained.count(level) / len(trained) for level in (1000, 800, 600, 400, 200)]
    assert min(shares) > 0.15

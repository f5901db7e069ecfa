"""Persistent rollouts: they are fresh ones, step for step; their levels are the schedule's; they can be kept."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.diffusion.chains import Chains, Keeper, Ride, advanced, draw_ways, kind_of, renewed, seated
from comfyui_rollout.diffusion.noisy_batch import predict
from comfyui_rollout.diffusion.rollout import Draw, RolloutPlan, noisy_batch, roll_out
from comfyui_rollout.diffusion.rollouts.pairs import Pairs, PairsByKind, packed
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import SOLVERS, Level, Predictor, ask, integrate, solver
from comfyui_rollout.diffusion.trajectory import fine_path, following, target_onto

ORDERS = [(name, order) for name in SOLVERS for order in ((1, 2, 3) if name in ("dpm", "unipc") else (1,))]
PLAN = RolloutPlan(max_step_offset=4, probability=1.0, step_size=70.0, rollout="persistent")


def batch_of(schedule, count=6, dtype=torch.float64, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, count, 1, 2, 2, generator=generator, dtype=dtype)
    timestep = schedule.sample_timesteps(count, generator)
    told = {"latents": latents, "noise": noise}
    return noisy_batch(latents, noise, timestep, schedule, told, **more)


def live(model, schedule, plan, solve, updates, dtype=torch.float64, count=6):
    """The seated batches of some updates with weights that stand still; each batch has other images."""
    keeper = Keeper()
    for update in range(updates):
        batch = batch_of(schedule, count, dtype, seed=update)
        seat = keeper.seat(batch, model, plan, solve, update, torch.Generator().manual_seed(update))
        yield seat
        with torch.no_grad():
            predict(model, seat)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["f64", "f32"])
@pytest.mark.parametrize("which", ORDERS, ids=str)
def test_with_weights_that_stand_still_a_chain_is_a_fresh_rollout(mixture, schedule, which, dtype, most):
    """Each state in each step is that of a rollout from the same source: every solver, prediction type and schedule."""
    model, solve = mixture(schedule), solver(*which)
    seen, ages = 0, set()
    for seat in live(model, schedule, PLAN, solve, 9, dtype):
        alone = noisy_batch(seat.latents, seat.noise, seat.timestep, schedule, seat.conditioning)
        fresh = roll_out(model, alone, Draw(seat.lengths, seat.source, seat.stride), solve)
        assert torch.equal(seat.teacher_forced, fresh.teacher_forced)
        scale = fresh.x.abs().amax().clamp(min=1)
        assert (seat.x - fresh.x).abs().max() < most * scale * (1 if dtype == torch.float64 else 4)
        seen, ages = seen + int(seat.rolled.sum()), ages | set(seat.lengths.tolist())
    assert seen > 20
    assert ages == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("which", [("euler", 1), ("dpm", 2), ("unipc", 3), ("heun", 1)], ids=str)
def test_chains_from_noise_walk_the_samplers_grid(mixture, which):
    """From pure noise down the shifted grid of ten steps: at its end a chain has the sampler's own sample."""
    schedule, solve = FlowMatching(shift=3.0), solver(*which)
    plan = RolloutPlan(max_step_offset=9, probability=1.0, step_size=100.0, rollout="persistent", from_noise=True)
    model, grid = mixture(schedule), schedule.sampling_timesteps(10)
    sampled, compared = {}, 0
    for seat in live(model, schedule, plan, solve, 25):
        for item in range(len(seat.x)):
            steps = int(seat.lengths[item])
            place = int((grid - seat.timestep[item]).abs().argmin())
            assert grid[place] == seat.timestep[item]
            if seat.source[item] == grid[0]:
                noise = seat.noise[item : item + 1]
                path = sampled.setdefault(float(noise.flatten()[0]), [])
                if not path:
                    columns, lengths = grid[:, None], torch.tensor([10])
                    integrate(
                        model, schedule, noise, columns, lengths, {}, solve, lambda _, x, path=path: path.append(x)
                    )
                assert steps == place
                assert (path[steps] - seat.x[item]).abs().max() < 1e-12
                compared += 1
    assert compared > 60


DENSITIES = [
    FlowMatching(),
    FlowMatching(shift=3.0),
    FlowMatching(density="logit_normal", logit_mean=0.3, logit_std=0.8, shift=1.7),
    FlowMatching(density="mode", mode_scale=1.29),
    FlowMatching(density="mode", mode_scale=-0.8),
    FlowMatching(density="beta", beta_alpha=2.0, beta_beta=3.5),
    DDPM(),
]
PLANS = [
    {"max_step_offset": 3, "step_size": 100.0},
    {"max_step_offset": 30, "step_size": 40.0},
    {"max_step_offset": 6, "step_size": 20.0, "step_size_max": 300.0},
    {"max_step_offset": 8, "step_size": 50.0, "strategy": "biased_early"},
]


@pytest.mark.parametrize(
    ("schedule", "options"),
    [*((schedule, PLANS[0]) for schedule in DENSITIES), *((DENSITIES[2], options) for options in PLANS[1:])],
    ids=str,
)
def test_the_levels_of_chains_have_the_schedules_density(schedule, options):
    """A million trained levels of chains under way, from the first step on, are distributed as a million drawn ones."""
    plan, generator = RolloutPlan(probability=1.0, rollout="persistent", **options), torch.Generator().manual_seed(1)
    slots, updates = 4000, 250
    grid, steps = draw_ways(plan, schedule, slots, generator, midway=True)
    age, seen = torch.zeros(slots, dtype=torch.int64), []
    for _ in range(updates):
        seen.append(grid.gather(1, age[:, None])[:, 0])
        age += 1
        over = (age >= steps).nonzero().flatten()
        grid[over], steps[over] = draw_ways(plan, schedule, len(over), generator)
        age[over] = 0
    asked = schedule.sample_timesteps(slots * updates, generator).sort().values
    at = asked[:: len(asked) // 100]

    def below(levels):
        return torch.searchsorted(levels, at + 0.5).double() / len(levels)

    assert (below(torch.cat(seen).sort().values) - below(asked)).abs().max() < 0.008
    # At any single moment too, the first included.
    for moment in (0, 1, updates - 1):
        assert (below(seen[moment].sort().values) - below(asked)).abs().max() < 0.035


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


@pytest.mark.parametrize("which", [("euler", 1), ("dpm", 2), ("unipc", 2), ("unipc", 3)], ids=str)
def test_a_network_that_puts_out_the_target_follows_the_fine_path(mixture, schedule, which):
    """With the target of its own solver and history, a chain never leaves its fine path, walked by a better one."""
    model, solve = mixture(schedule), solver(*which)
    chains = renewed(None, batch_of(schedule), 6, PLAN, solve, 0, torch.Generator().manual_seed(0))[0]
    chains = renewed(chains, batch_of(schedule, seed=1), 6, PLAN, solve, 0, torch.Generator().manual_seed(1))[0]
    went = 0
    for _ in range(4):
        going = (chains.age < chains.steps).nonzero().flatten()
        went += len(going)
        chains = chains.items(going)
        batch = batch_of(schedule, len(going))
        seat = seated(batch, Ride(chains, model, schedule, solve, lambda _: None), remember=True)
        path = fine_path(model, seat, reference_steps=1, solve=solver("heun"))
        wanted = target_onto(path, seat, solve)
        expected = solver("heun").step(
            Predictor(model, {}, schedule),
            chains.fine,
            Level.at(schedule, seat.timestep),
            Level.at(schedule, following(seat)),
            None,
        )[0]
        torch.testing.assert_close(path.y, expected, rtol=0, atol=1e-12)
        chains = advanced(chains, wanted, model, schedule, solve, path.y)
        assert (chains.x - chains.fine).abs().max() < 1e-6
    assert went > 12


def test_only_the_share_of_the_batch_is_taken(mixture):
    """probability of the places, to one; the other items are untouched, bit for bit; start_step and ramps count."""
    schedule, solve = FlowMatching(), solver("euler")
    plan = RolloutPlan(
        max_step_offset=3, step_size=50.0, rollout="persistent", ramp_steps=10, prob_end=0.5, start_step=4
    )
    for update, seat in enumerate(live(mixture(schedule), schedule, plan, solve, 20, count=64)):
        batch = batch_of(schedule, 64, seed=update)
        taken = int((seat.stride > 0).sum())
        assert abs(taken - 64 * plan.probability_at(update)) < 1
        assert (seat.stride[:taken] > 0).all()
        for name in ("latents", "noise", "x", "timestep", "teacher_forced"):
            assert torch.equal(getattr(seat, name)[taken:], getattr(batch, name)[taken:])
        if update <= 4:
            assert seat.listener is None


def test_a_chain_keeps_its_image(mixture):
    """Latents, noise, conditioning, mask and weight are those of the batch in which it began."""
    schedule, solve, keeper = FlowMatching(), solver("euler"), Keeper()
    born = {}
    for update in range(12):
        mask, weight = torch.full((6, 1, 2, 2), float(update)), torch.full((6,), float(update))
        batch = batch_of(schedule, seed=update, mask=mask, weight=weight)
        seat = keeper.seat(batch, mixture(schedule), PLAN, solve, update, torch.Generator().manual_seed(update))
        for place in range(6):
            if seat.lengths[place] == 0:
                born[place] = update
            its = batch_of(schedule, seed=born[place])
            assert torch.equal(seat.latents[place], its.latents[place])
            assert torch.equal(seat.conditioning["noise"][place], its.noise[place])
            assert seat.mask[place].unique().tolist() == [born[place]] == seat.weight[place : place + 1].tolist()
        predict(mixture(schedule), seat)
    assert set(born.values()) != {0}


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


def test_old_chains_begin_anew(mixture):
    """After max_age updates, or ten times their steps: the weights that made them are long gone."""
    schedule, solve = FlowMatching(), solver("euler")
    for max_age, oldest in ((7, 7), (0, 50)):
        plan = RolloutPlan(max_step_offset=4, probability=1.0, step_size=1.0, rollout="persistent", max_age=max_age)
        chains = renewed(None, batch_of(schedule), 6, plan, solve, 0, torch.Generator())[0]
        chains = Chains.of({**chains.tensors(), "steps": torch.full((6,), 5)})
        for update, anew in ((oldest, False), (oldest + 1, True)):
            again = renewed(chains, batch_of(schedule, seed=9), 6, plan, solve, update, torch.Generator())[0]
            assert (again.begun == update).all() == anew


def test_other_settings_begin_new_chains():
    """A resumed run may have another solver or longer rollouts: what was kept does not fit and is let go."""
    schedule, generator = FlowMatching(), torch.Generator()
    chains = renewed(None, batch_of(schedule), 6, PLAN, solver("dpm", 3), 0, generator)[0]
    longer = RolloutPlan(max_step_offset=9, probability=1.0, step_size=70.0, rollout="persistent")
    for plan, solve in ((PLAN, solver("euler")), (longer, solver("dpm", 3))):
        assert (renewed(chains, batch_of(schedule), 6, plan, solve, 3, generator)[0].begun == 3).all()
    assert not (renewed(chains, batch_of(schedule), 6, PLAN, solver("dpm", 3), 3, generator)[0].begun == 3).all()


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


@pytest.mark.parametrize(("name", "calls"), [("euler", 0), ("unipc", 0), ("dpm", 0), ("heun", 1), ("rk4", 3)])
def test_no_forward_is_made_for_the_rollout(mixture, name, calls):
    """The training forward is the solver's prediction; only solvers with several calls ask for the others."""
    schedule, asked = FlowMatching(), []

    def counting(x, timestep, conditioning):
        asked.append(len(x))
        return mixture(schedule)(x, timestep, conditioning)

    for update, seat in enumerate(live(counting, schedule, PLAN, solver(name), 5)):
        assert len(asked) == update * (1 + calls)
        assert not seat.x.requires_grad


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


def test_kinds_tell_apart_what_cannot_share_a_batch():
    """Sizes, conditioning, masks."""
    schedule = FlowMatching()
    plain = batch_of(schedule)
    assert kind_of(plain) == kind_of(batch_of(schedule, count=3))
    assert kind_of(plain) != kind_of(batch_of(schedule, mask=torch.ones(6, 1, 2, 2)))


def with_texts(batch, length):
    """The batch, told texts (3, length, 2) of ones, and their mask."""
    told = {"text": torch.ones(3, length, 2), "mask": torch.ones(3, length, dtype=torch.bool)}
    return replace(batch, conditioning=told)


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


@pytest.mark.parametrize(("from_noise", "size"), [(True, 660.0), (True, 670.0), (False, 900.0), (False, 1000.0)])
def test_a_step_of_the_whole_way_makes_no_chain(from_noise, size):
    """What the plan says of chains that would end with their first step is what becomes of them."""
    plan = RolloutPlan(4, 1.0, step_size=size, rollout="persistent", from_noise=from_noise)
    ways = draw_ways(plan, FlowMatching(), 200, torch.Generator().manual_seed(0))
    assert plan.ends_at_once(FlowMatching()) == (int(ways.steps.max()) == 1) == (size in (670.0, 1000.0))


def test_restored_pairs_are_those_of_the_state_alone():
    """Pairs of an image size that came after the state are forgotten by a run that goes back to it."""
    pairs, small = PairsByKind(6), batch_of(FlowMatching(), count=3)
    pairs.of("small").add(packed(small.latents, small.noise, {}))
    state = pairs.state_dict()
    pairs.of("large").add(packed(small.latents, small.noise, {}))
    pairs.load_state_dict(state)
    assert (len(pairs.of("small")), len(pairs.of("large"))) == (3, 0)


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

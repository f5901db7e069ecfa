"""How chains live: they are fresh rollouts, step for step; what they take, keep, and when they begin anew."""

import pytest
import torch
from chained import PLAN, batch_of
from comfyui_rollout.diffusion.chains import Chains, Keeper, Ride, advanced, renewed, seated
from comfyui_rollout.diffusion.noisy_batch import predict
from comfyui_rollout.diffusion.rollout import Draw, RolloutPlan, noisy_batch, roll_out
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import SOLVERS, Level, Predictor, integrate, solver
from comfyui_rollout.diffusion.trajectory import fine_path, following, target_onto

ORDERS = [(name, order) for name in SOLVERS for order in ((1, 2, 3) if name in ("dpm", "unipc") else (1,))]


def live(model, schedule, plan, solve, updates, dtype=torch.float64, count=6):
    """The seated batches of some updates with weights that stand still; each batch has other images."""
    keeper = Keeper()
    for update in range(updates):
        batch = batch_of(schedule, count, dtype, seed=update)
        seat = keeper.seat(batch, model, plan, solve, update, torch.Generator().manual_seed(update))
        yield seat
        with torch.no_grad():
            predict(model, seat)


@pytest.mark.parametrize("which", ORDERS, ids=str)
def test_with_weights_that_stand_still_a_chain_is_a_fresh_rollout(mixture, schedule, which):
    """Each state in each step is that of a rollout from the same source: every solver, prediction type and schedule."""
    assert_chains_are_fresh_rollouts(mixture(schedule), schedule, solver(*which), torch.float64, 1e-12)


@pytest.mark.parametrize("which", ORDERS, ids=str)
def test_so_is_a_chain_of_single_precision(mixture, which):
    """As latents are; where their noise is strongest, too."""
    for schedule in (FlowMatching(), DDPM("scaled_linear", "v_prediction", zero_terminal_snr=True)):
        assert_chains_are_fresh_rollouts(mixture(schedule), schedule, solver(*which), torch.float32, 1e-6)


def assert_chains_are_fresh_rollouts(model, schedule, solve, dtype, most):
    seen, ages = 0, set()
    for seat in live(model, schedule, PLAN, solve, 9, dtype):
        alone = noisy_batch(seat.latents, seat.noise, seat.timestep, schedule, seat.conditioning)
        fresh = roll_out(model, alone, Draw(seat.lengths, seat.source, seat.stride), solve)
        assert torch.equal(seat.teacher_forced, fresh.teacher_forced)
        scale = fresh.x.abs().amax().clamp(min=1)
        assert (seat.x - fresh.x).abs().max() < most * scale
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

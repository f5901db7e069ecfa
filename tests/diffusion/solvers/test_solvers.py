"""Solvers against exact answers: analytic models, the theory's orders, diffusers' schedulers."""

import math

import pytest
import torch
from comfyui_rollout.diffusion.predictions import blend
from comfyui_rollout.diffusion.rollout import Draw, noisy_batch, ragged_grid, roll_out
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import SOLVERS, History, Level, Predictor, integrate, solver
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from every_solver import EVERY_SOLVER, distance, name_of, normal, walk

SMOOTH = [
    FlowMatching(),
    DDPM("squaredcos_cap_v2", "epsilon"),
    DDPM("scaled_linear", "v_prediction"),
    DDPM("scaled_linear", "sample", zero_terminal_snr=True),
]


@pytest.mark.parametrize("schedule", SMOOTH, ids=name_of)
def test_each_solver_converges_at_its_order(mixture, schedule):
    """Halving the steps divides the error by 2**order; a wrong coefficient anywhere costs at least one order."""
    model, x = mixture(schedule), normal(4, 1, 1, 2)
    source = torch.linspace(700, 900, 4, dtype=torch.float64)
    target = torch.linspace(100, 300, 4, dtype=torch.float64)
    exact = walk(model, schedule, x, source, target, 160, solver("rk4"))

    def order(name, order, variant="bh2"):
        errors = [
            distance(walk(model, schedule, x, source, target, steps, solver(name, order, variant)), exact)
            for steps in (40, 80)
        ]
        return math.log2(errors[0] / errors[1])

    assert order("euler", 1) == pytest.approx(1, abs=0.1)
    assert order("dpm", 1) == pytest.approx(1, abs=0.1)
    assert order("dpm", 2) == pytest.approx(2, abs=0.15)
    # UniPC's corrector raises the order by one (arXiv 2302.04867, theorem 3.1).
    assert order("unipc", 1) == pytest.approx(2, abs=0.15)
    assert order("unipc", 2, "bh1") == pytest.approx(3, abs=0.3)
    assert order("unipc", 2, "bh2") == pytest.approx(3, abs=0.3)
    assert order("unipc", 3, "bh1") > 2.8
    assert order("unipc", 3, "bh2") > 2.8
    assert order("heun", 1) == pytest.approx(2, abs=0.15)
    assert order("rk4", 1) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize(("name", "expected"), [("dpm", 2), ("unipc", 4)])
def test_third_order_from_an_exact_start(mixture, name, expected):
    """Without the first-order first steps UniPC-3 shows its true order, and DPM-Solver++(3M) that it has only two."""
    schedule = FlowMatching()
    model, x = mixture(schedule), normal(3, 1, 1, 2)
    source, target = torch.full((3,), 800.0).double(), torch.tensor([150.0, 200.0, 250.0]).double()
    predict, exact = Predictor(model, {}, schedule), walk(model, schedule, x, source, target, 120, solver("rk4"))

    def error(steps):
        grid = ragged_grid(source, target, torch.full((3,), steps))
        levels, state, history = Level.at(schedule, grid), x, History()
        for step in (0, 1):
            history = history.after(levels.row(step), predict.denoised(state, levels.row(step)), state, keep=3)
            state = walk(model, schedule, state, grid[step], grid[step + 1], 4, solver("rk4"))
        for step in range(2, steps):
            state, history = solver(name, 3).step(predict, state, levels.row(step), levels.row(step + 1), history)
        return distance(state, exact)

    assert math.log2(error(40) / error(80)) == pytest.approx(expected, abs=0.3)


def theirs(scheduler, model, levels, x, flow):
    """Drive one of diffusers' schedulers over our levels (steps + 1, 1) with our model."""
    scheduler.set_timesteps(len(levels.timestep) - 1)
    ratio = levels.sigma if flow else levels.sigma / levels.alpha
    scheduler.sigmas = ratio[:, 0].clone()
    # Their timesteps only name the steps; distinct integers make the look-up safe.
    scheduler.timesteps = torch.arange(len(ratio) - 1, 0, -1)
    for step, name in enumerate(scheduler.timesteps):
        x = scheduler.step(model(x, levels.row(step).timestep, {}), name, x).prev_sample
    return x


PARITY = [
    (FlowMatching(shift=3.0), {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    (DDPM("scaled_linear", "epsilon"), {"prediction_type": "epsilon"}),
    (DDPM("scaled_linear", "v_prediction"), {"prediction_type": "v_prediction"}),
    (DDPM("squaredcos_cap_v2", "sample"), {"prediction_type": "sample"}),
]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("lands", [True, False], ids=["to-clean", "to-a-level"])
@pytest.mark.parametrize("which", [which for which in EVERY_SOLVER if which[0] in ("dpm", "unipc")], ids=name_of)
@pytest.mark.parametrize(("schedule", "options"), PARITY, ids=name_of)
def test_multistep_solvers_agree_with_diffusers(mixture, schedule, options, which, lands):
    """Same model, same levels, same numbers as UniPCMultistepScheduler and DPMSolverMultistepScheduler."""
    name, order, variant = which
    if lands and name == "unipc" and (order == 3 or variant == "bh1"):
        pytest.skip("at the clean end theirs makes a NaN of bh1, and lowers the order of the last step but one")
    options = options | {"solver_order": order, "final_sigmas_type": "zero" if lands else "sigma_min"}
    if name == "unipc":
        scheduler = UniPCMultistepScheduler(**options, solver_type=variant, lower_order_final=lands)
    else:
        scheduler = DPMSolverMultistepScheduler(**options, lower_order_final=False)
    # From the second level on, where the log-SNR is finite: theirs cannot start at pure noise.
    timesteps = schedule.sampling_timesteps(12)[1 : None if lands else -1, None]
    model, x = mixture(schedule), normal(1, 2, 3, 3)
    expected = theirs(scheduler, model, Level.at(schedule, timesteps), x, schedule.is_flow_matching)
    lengths = torch.tensor([len(timesteps) - 1])
    got = integrate(model, schedule, x, timesteps, lengths, {}, solver(name, order, variant))
    assert distance(got, expected) < 1e-5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_euler_is_ddim(mixture, prediction):
    """Our euler on a DDPM schedule is diffusers' DDIMScheduler, down to the clean end."""
    schedule = DDPM("scaled_linear", prediction)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(20)
    model, x = mixture(schedule), normal(1, 2, 3, 3)
    expected = x
    for timestep in scheduler.timesteps:
        expected = scheduler.step(model(expected, timestep[None], {}), timestep, expected).prev_sample
    grid = schedule.sampling_timesteps(20)[:, None]
    assert grid[:-1, 0].tolist() == scheduler.timesteps.tolist()
    got = integrate(model, schedule, x, grid, torch.tensor([20]), {}, solver("euler"))
    assert distance(got, expected) < 1e-5


def test_euler_is_flow_matching_euler(mixture):
    """Our euler on a flow schedule is diffusers' FlowMatchEulerDiscreteScheduler."""
    schedule = FlowMatching(shift=3.0)
    grid = schedule.sampling_timesteps(20)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=(grid[:-1] / 1000).numpy())
    model, x = mixture(schedule), normal(1, 2, 3, 3)
    expected = x
    for timestep in scheduler.timesteps:
        expected = scheduler.step(model(expected, timestep[None], {}), timestep, expected).prev_sample
    got = integrate(model, schedule, x, grid[:, None], torch.tensor([20]), {}, solver("euler"))
    assert distance(got, expected) < 1e-5


def test_heun_is_flow_matching_heun(mixture):
    """Our heun on a flow schedule is diffusers' FlowMatchHeunDiscreteScheduler, whose last step alone is Euler's."""
    schedule, scheduler = FlowMatching(), FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(10)
    grid = schedule.sampling_timesteps(10)
    scheduler.sigmas = torch.cat([grid[:1], grid[1:-1].repeat_interleave(2), grid[-1:]]) / 1000
    scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    model, x = mixture(schedule), normal(1, 2, 3, 3)
    expected = x
    for timestep in scheduler.timesteps:
        expected = scheduler.step(model(expected, timestep[None], {}), timestep, expected).prev_sample
    got = integrate(model, schedule, x, grid[:-1, None], torch.tensor([9]), {}, solver("heun"))
    last = grid[-2:, None]
    got = integrate(model, schedule, got, last, torch.tensor([1]), {}, solver("euler"))
    assert distance(got, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("which", EVERY_SOLVER, ids=name_of)
def test_a_perfect_model_lands_on_the_teacher_forced_latents(point_mass, schedule, which, dtype):
    """With a model that knows the answer a rollout of any length changes nothing, from pure noise to the clean end."""
    latents, noise = normal(5, 1, 2, 2, seed=1, dtype=dtype), normal(5, 1, 2, 2, seed=2, dtype=dtype)
    timestep = torch.tensor([schedule.clean_timestep, 0.5, 20.0, 500.0, 900.0], dtype=torch.float64)
    source = torch.tensor([schedule.noisy_timestep, 300.0, 700.0, schedule.noisy_timestep, 930.0], dtype=torch.float64)
    lengths = torch.tensor([6, 3, 5, 4, 1])
    batch = noisy_batch(latents, noise, timestep, schedule, {"latents": latents, "noise": noise})
    rolled = roll_out(point_mass(schedule), batch, Draw(lengths, source, (source - timestep) / lengths), solver(*which))
    assert rolled.x.dtype == dtype
    # Almost at pure noise epsilon hardly knows the image: its rounding error grows by alpha' / alpha in a step.
    growth = 1 if schedule.prediction != "epsilon" else 0.05 / schedule.coefficients(source)[0].min()
    assert distance(rolled.x, batch.teacher_forced) < torch.finfo(dtype).eps * 500 * max(1, growth)


LINEAR = [which for which in EVERY_SOLVER if which[0] in ("euler", "dpm", "unipc")]


@pytest.mark.parametrize("which", LINEAR, ids=name_of)
def test_the_weights_of_a_step_are_the_step(mixture, schedule, which):
    """Solver.linear, with a history of any depth, says where the step lands before its prediction is there."""
    solve, x, history = solver(*which), normal(3, 1, 2, 2), History()
    predict = Predictor(mixture(schedule), {}, schedule)
    source = torch.tensor([schedule.noisy_timestep, 900.0, 500.0]).double()
    target = torch.tensor([300.0, schedule.clean_timestep, 77.0]).double()
    levels = Level.at(schedule, ragged_grid(source, target, torch.full((3,), 5)))
    for step in range(5):
        now, then = levels.row(step), levels.row(step + 1)
        linear = solve.linear(now, then, history)
        newest = (linear.newest, predict.denoised(x, now))
        expected = blend((linear.of_x, x), newest, *linear.past)
        x, history = solve.step(predict, x, now, then, history)
        assert len(history.denoised) == min(step + 1, solve.remembers)
        assert distance(x, expected) < 1e-12 * max(1, x.abs().max())


@pytest.mark.parametrize("name", ["heun", "rk4"])
def test_steps_with_several_predictions_have_no_weights(name):
    """No single output decides where they land."""
    assert solver(name).linear is None


@pytest.mark.parametrize("name", SOLVERS)
def test_the_network_is_never_told_an_untrained_timestep(mixture, name):
    """The clean end of DDPM is timestep -1; a network with an embedding table would fail on it."""
    schedule, told = DDPM("scaled_linear", "v_prediction"), []

    def listening(x, timestep, conditioning):
        told.append(timestep)
        return mixture(schedule)(x, timestep, conditioning)

    ends = torch.tensor([999.0]).double(), torch.tensor([-1.0]).double()
    walk(listening, schedule, normal(1, 1, 1, 1), *ends, 4, solver(name))
    assert torch.cat(told).min() >= 0


@pytest.mark.parametrize("arguments", [("midpoint",), ("dpm", 4), ("unipc", 0), ("unipc", 2, "bh3")])
def test_unknown_solvers_are_refused(arguments):
    """A wrong name, order or variant is an error with a line to read, not a silent fallback."""
    with pytest.raises(ValueError, match=r"unknown|order"):
        solver(*arguments)

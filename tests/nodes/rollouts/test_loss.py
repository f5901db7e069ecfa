"""The loss nodes."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.diffusion import losses
from comfyui_rollout.diffusion.schedules import DDPM
from comfyui_rollout.diffusion.solvers import ask, solver
from comfyui_rollout.nodes import DiffusionLoss, NoisyBatch, Optimizer, ReflexFlowLoss, Rollout
from comfyui_rollout.nodes.rollouts.reference import Reference, wanted_output
from comfyui_rollout.training.forward import autocast, training_mode
from comfyui_rollout.training.stream import Run, Step, StepError
from diffusers.training_utils import EMAModel

EVERY = {"max_step_offset": 3, "probability": 1.0, "step_size": 50.0, "strategy": "biased_late"}


def values(graph, **options):
    """The losses of one step (B,) in training, and what was reported."""
    wired = graph(**options)
    step = Step(Run(wired.loss), 0)
    loss = step.value(wired.loss)
    assert loss.shape == (4,)
    assert loss.requires_grad
    assert loss.isfinite().all()
    return loss.detach(), step


def test_the_plain_loss_is_the_squared_error_of_the_velocity(graph):
    """Against the definition, with the network's own output."""
    wired = graph()
    step = Step(Run(wired.loss), 0)
    loss, batch, model = (step.value(stream) for stream in (wired.loss, wired.batch, wired.model))
    output = model(batch.x, batch.timestep.float(), batch.conditioning)
    expected = (output - (batch.noise - batch.latents)).square().mean((1, 2, 3))
    torch.testing.assert_close(loss, expected)


def test_huber_and_min_snr_change_the_loss(graph):
    """The widgets arrive: huber counts large errors less, min-SNR weighs levels."""
    plain, _ = values(graph, schedule=DDPM())
    huber, _ = values(graph, schedule=DDPM(), loss_inputs={"loss_type": "huber"})
    snr, _ = values(graph, schedule=DDPM(), loss_inputs={"snr_gamma": 0.001})
    assert (huber < plain).all()
    assert (snr <= plain * 1.0001).all()
    assert not torch.allclose(snr, plain)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_can_be_trained_with_rollouts(graph, prediction):
    """Rollouts are not for flow matching alone."""
    values(graph, schedule=DDPM(prediction=prediction), rollout=EVERY)


def test_the_target_matters_to_rolled_out_items_only(graph):
    """On teacher-forced items original and clean are the same to the bit."""
    for rollout in (None, EVERY):
        losses = [values(graph, rollout=rollout, loss_inputs={"target": kind})[0] for kind in ("original", "clean")]
        assert torch.equal(*losses) == (rollout is None)


# What each item counts

PLAIN = [
    (DiffusionLoss, {}),
    (DiffusionLoss, {"loss_type": "huber", "snr_gamma": 5.0}),
    (ReflexFlowLoss, {"reflexflow": "disable"}),
    (ReflexFlowLoss, {"alpha": 0.0, "beta1": 0.0}),
]
"""Ways to get nothing but the error between output and target."""


@pytest.mark.parametrize("target", ["original", "clean", "trajectory"])
@pytest.mark.parametrize(("node", "inputs"), PLAIN)
def test_drift_correcting_targets_are_weighted(graph, monkeypatch, node, inputs, target):
    """Each node multiplies target_weight into each item's loss, and nothing into the ordinary target's."""
    options = {"loss": node, "rollout": {**EVERY, "step_size": 200.0}, "loss_inputs": {**inputs, "target": target}}
    wired = graph(**options)
    weight = losses.target_weight(Step(Run(wired.loss), 0).value(wired.batch), target).float()
    weighted, _ = values(graph, **options)
    monkeypatch.setattr(losses, "target_weight", lambda batch, kind: torch.ones_like(batch.timestep))
    unweighted, _ = values(graph, **options)
    torch.testing.assert_close(weighted, unweighted * weight)
    assert (weight < 1).any() == (target != "original")


def test_the_drift_term_is_not_weighted(graph, monkeypatch):
    """ReflexFlow's anti-drift has no division by a distance to undo."""
    options = {"loss": ReflexFlowLoss, "rollout": EVERY, "loss_inputs": {"target": "clean", "beta2": 0.0}}
    weighted, _ = values(graph, **options)
    monkeypatch.setattr(losses, "target_weight", lambda batch, kind: (~batch.rolled).double())
    assert torch.equal(values(graph, **options)[0], weighted)


# The trajectory's reference

TRAJECTORY = {"target": "trajectory"}


@pytest.mark.parametrize(("node", "more"), [(DiffusionLoss, {}), (ReflexFlowLoss, {"beta1": 0.0})])
@pytest.mark.parametrize(
    ("reference", "passes"),
    [
        ({}, 8),
        ({"reference_steps": 3}, 12),
        ({"reference_steps": 3, "reference_sampler": "euler"}, 12),
        ({"reference_sampler": "heun"}, 16),
        ({"reference_sampler": "rk4"}, 32),
    ],
)
def test_the_cost_of_the_reference_is_said_and_kept(graph, build, node, more, reference, passes):
    """On the node, before it is paid; the rollouts of this batch reach the most that is promised."""
    wired = graph(rollout={**EVERY, "step_size": 1.0})
    returned = build(node, batch=wired.batch, model=wired.model, **TRAJECTORY, **more, **reference)
    words = f"the trajectory's reference takes up to {passes} more forward passes per training step"
    assert returned["ui"] == {"text": [words]}

    def calls(target):
        stream = build(node, batch=wired.batch, model=wired.model, target=target, **more, **reference)["result"][0]
        run, counted = Run(stream), []
        run.value(wired.model).network.register_forward_hook(lambda *_: counted.append(1))
        step = Step(run, 0)
        step.value(stream)
        assert int(step.value(wired.batch).lengths.max()) == EVERY["max_step_offset"]
        return len(counted)

    assert calls("trajectory") - calls("original") == passes


@pytest.mark.parametrize("node", [DiffusionLoss, ReflexFlowLoss])
@pytest.mark.parametrize(("rollout", "target"), [(EVERY, "clean"), ({}, "trajectory"), (None, "trajectory")])
def test_nothing_is_said_where_there_is_no_reference(graph, build, node, rollout, target):
    """Other targets cost nothing; nor does the trajectory where nothing is rolled out."""
    wired = graph(rollout=rollout)
    assert build(node, batch=wired.batch, model=wired.model, target=target)["ui"] == {}


@pytest.mark.parametrize(("node", "more"), [(DiffusionLoss, {}), (ReflexFlowLoss, {"beta1": 0.0})])
def test_the_settings_of_the_reference_arrive(graph, node, more):
    """Solver and number of steps change the target; unipc in two steps is what nobody touched."""
    options = {"loss": node, "rollout": {**EVERY, "step_size": 200.0}}
    usual, _ = values(graph, **options, loss_inputs={**TRAJECTORY, **more})
    spelt_out = {"reference_sampler": "unipc", "reference_steps": 2}
    assert torch.equal(values(graph, **options, loss_inputs={**TRAJECTORY, **more, **spelt_out})[0], usual)
    for change in ({"reference_sampler": "rk4"}, {"reference_sampler": "euler"}, {"reference_steps": 5}):
        assert not torch.equal(values(graph, **options, loss_inputs={**TRAJECTORY, **more, **change})[0], usual)


@pytest.mark.parametrize(("node", "more"), [(DiffusionLoss, {}), (ReflexFlowLoss, {"beta1": 0.0})])
def test_the_target_may_be_that_of_the_rollouts_own_sampler(graph, node, more):
    """It differs for a sampler with a memory, and not for euler."""
    for sampler, same in (("unipc", False), ("dpm", False), ("euler", True)):
        options = {"loss": node, "rollout": {**EVERY, "step_size": 200.0, "sampler": sampler}}
        losses = [
            values(graph, **options, loss_inputs={**TRAJECTORY, **more, "target_sampler": kind})[0]
            for kind in ("euler", "rollout")
        ]
        assert torch.equal(*losses) == same


def test_the_reference_may_be_guided(graph):
    """Then the target is another one; a guided rollout is refused, for its next step is not what is led to the path."""
    options = {"rollout": {**EVERY, "step_size": 200.0}, "model": {"null_class": True}}
    plain, guided = (
        values(graph, **options, loss_inputs={**TRAJECTORY, "reference_guidance": scale})[0] for scale in (1.0, 4.0)
    )
    assert not torch.equal(plain, guided)
    with pytest.raises(ValueError, match="set guidance and sampling_guidance of Rollout to 1 and 0"):
        graph(rollout={**EVERY, "guidance": 2.0}, model={"null_class": True}, loss_inputs=TRAJECTORY)
    with pytest.raises(ValueError, match="turn on null_class in New Model"):
        graph(rollout=EVERY, loss_inputs={**TRAJECTORY, "reference_guidance": 2.0})


def test_the_reference_may_be_the_averaged_model(graph):
    """ema is the average's path also in bf16 right after the live model was asked: up to rounding that of fp32."""
    wired = graph(rollout=EVERY)
    run = Run(wired.loss)
    model = run.value(wired.model)
    run.averaged_weights = EMAModel(model.network.parameters(), decay=0.5)
    generator = torch.Generator().manual_seed(0)
    for parameter in run.averaged_weights.shadow_params:
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    batch = Step(run, 0).value(wired.batch)

    def reference(precision, weights):
        step = Step(run, 0)
        with training_mode(), autocast(torch.device("cpu"), precision):
            ask(model, batch.x, batch.timestep, batch.conditioning)
            return wanted_output(step, model, batch, "trajectory", Reference(reference_weights=weights)).float()

    whole, half = reference("fp32", "ema"), reference("bf16", "ema")
    rounding, live = (half - whole).abs().max(), (reference("fp32", "live") - whole).abs().max()
    assert rounding < 0.1 * live


def test_the_reference_may_be_the_average_that_an_optimizer_keeps(graph, wire, train):
    """adamw_schedule_free averages by itself, and refuses ema_decay: it is not asked for then."""
    pytest.importorskip("pytorch_optimizer")
    wired = graph(rollout=EVERY, loss_inputs={**TRAJECTORY, "reference_weights": "ema"})
    assert train(wired, optimizer=wire(Optimizer, optimizer="adamw_schedule_free"), steps=2).facts["steps_done"] == 2
    with pytest.raises(StepError, match="reference_weights is ema: set ema_decay in Optimizer Step"):
        train(wired, steps=2)


def test_no_teacher_is_made_before_rollouts_begin(graph):
    """Its weights are those of the first step that has one: before that there is nothing to learn from."""
    wired = graph(rollout={**EVERY, "start_step": 1}, loss_inputs={**TRAJECTORY, "reference_weights": "frozen"})
    run = Run(wired.loss)
    Step(run, 0).value(wired.loss)
    assert not run.state_of_kept()
    Step(run, 1).value(wired.loss)
    assert len(run.state_of_kept()[wired.loss.node_id]) == len(list(run.value(wired.model).network.parameters()))


def test_a_guided_reference_in_training_is_warned_of(graph):
    """It would guide again what is guided already; a teacher that stands still does not."""
    options = {"rollout": EVERY, "model": {"null_class": True}}
    for weights, told in (("live", 2), ("frozen", 1)):
        inputs = {**TRAJECTORY, "reference_guidance": 2.0, "reference_weights": weights}
        wired = graph(**options)
        built = DiffusionLoss().build("loss", batch=wired.batch, model=wired.model, loss_type="mse", huber_c=0.1,
                                      snr_gamma=0.0, **inputs)  # fmt: skip
        assert len(built["ui"]["text"]) == told


def test_the_reference_of_averaged_weights_is_heun():
    """A reference no better than the student teaches nothing: one step of unipc has no history and is first order."""
    assert Reference(reference_weights="ema").solve == solver("heun")
    assert Reference(reference_weights="live").solve.calls == 1
    assert Reference(reference_weights="frozen").solve == solver("heun")
    assert Reference(reference_weights="ema", reference_sampler="euler").solve == solver("euler")


def test_a_frozen_reference_is_the_weights_when_rollouts_began(graph, train, same_bits):
    """However the live weights have changed since, the target is that of the first ones; before, nothing is frozen."""
    rollout = {**EVERY, "start_step": 1}
    wired = graph(rollout=rollout, loss_inputs={**TRAJECTORY, "reference_weights": "frozen"})
    run = Run(wired.loss)
    run.steps, network = 9, run.value(wired.model).network
    batch = Step(run, 1).value(wired.batch)

    def reference(weights, update, batch=batch):
        step = Step(run, update)
        step.current = wired.loss
        heun = Reference(reference_weights=weights, reference_sampler="heun")
        with training_mode():
            return wanted_output(step, run.value(wired.model), batch, "trajectory", heun)

    with torch.no_grad():
        for change in range(2):
            reference("frozen", 0, Step(run, 0).value(wired.batch))  # nothing is rolled out in it
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(change)))
    first = reference("live", 1)
    assert torch.equal(reference("frozen", 1), first)
    live = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    assert torch.equal(reference("frozen", 2), first)
    assert not torch.equal(reference("live", 2), first)
    assert all(torch.equal(now, 1.5 * before) for now, before in zip(network.parameters(), live, strict=True))


def test_a_run_resumed_with_a_frozen_reference_is_bit_identical(graph, train, same_bits):
    """The frozen weights are part of the saved state."""
    rollout = {**EVERY, "rollout": "persistent", "probability": 0.5, "start_step": 2, "step_size": 200.0}
    wired = graph(rollout=rollout, loss_inputs={**TRAJECTORY, "reference_weights": "frozen"})
    whole, begun = train(wired, steps=7, ema_decay=0.5), train(wired, steps=4, ema_decay=0.5)
    resumed = train(wired, steps=7, ema_decay=0.5, resume=str(begun.folder))
    assert same_bits(resumed.weights, whole.weights)
    live = graph(rollout=rollout, loss_inputs={**TRAJECTORY, "reference_weights": "ema"})
    assert not same_bits(train(live, steps=7, ema_decay=0.5).weights, whole.weights)


def test_an_average_that_nobody_keeps_is_refused(graph):
    """reference_weights ema without ema_decay names the cure."""
    wired = graph(rollout=EVERY, loss_inputs={**TRAJECTORY, "reference_weights": "ema"})
    with pytest.raises(RuntimeError, match="set ema_decay in Optimizer Step, or choose live"):
        Step(Run(wired.loss), 0).value(wired.loss)


# ReflexFlow


def test_defar_behind_a_rollout_is_refused(graph):
    """It would not look at the rolled-out latents; a Rollout that is off, or ReflexFlow disabled, is fine."""
    defar = {"objective": "defar"}
    with pytest.raises(ValueError, match=r"^objective defar makes its own drift: wire Noisy Batch straight into"):
        graph(loss=ReflexFlowLoss, rollout=EVERY, loss_inputs=defar)
    for rollout, inputs in ((None, {}), ({}, {}), (EVERY, {"reflexflow": "disable"})):
        values(graph, loss=ReflexFlowLoss, rollout=rollout, loss_inputs={**defar, **inputs})


def test_the_trajectory_does_not_go_with_the_anti_drift(graph):
    """One pulls to the model's own path and the other to the clean image; where only one acts, it is fine."""
    with pytest.raises(ValueError, match="set beta1 to 0, or choose another target"):
        graph(loss=ReflexFlowLoss, rollout=EVERY, loss_inputs=TRAJECTORY)
    for rollout, inputs in ((EVERY, {"beta1": 0.0}), (EVERY, {"reflexflow": "disable"}), (None, {}), ({}, {})):
        values(graph, loss=ReflexFlowLoss, rollout=rollout, loss_inputs={**TRAJECTORY, **inputs})


def test_reflexflow_switches_itself_on_with_rollouts(graph):
    """auto: the ordinary loss without rollouts, ReflexFlow's two terms with them."""
    plain, step = values(graph, loss=ReflexFlowLoss)
    assert torch.equal(plain, values(graph)[0])
    assert "loss_anti_drift" not in step.metrics
    rolled, step = values(graph, loss=ReflexFlowLoss, rollout=EVERY)
    assert not torch.equal(rolled, values(graph, rollout=EVERY)[0])
    assert float(step.metrics["loss_anti_drift"]) > 0


@pytest.mark.parametrize("rollout", [{}, {**EVERY, "probability": 0.0}, {**EVERY, "max_step_offset": 0}])
def test_a_rollout_that_is_off_leaves_reflexflow_off(graph, rollout):
    """Wired but never rolling counts as no rollout."""
    assert torch.equal(values(graph, loss=ReflexFlowLoss, rollout=rollout)[0], values(graph)[0])


def test_reflexflow_can_be_opted_out_of(graph):
    """disable is the ordinary loss on the rolled-out latents, and asks for nothing extra."""
    disabled = {"reflexflow": "disable"}
    assert torch.equal(
        values(graph, loss=ReflexFlowLoss, rollout=EVERY, loss_inputs=disabled)[0], values(graph, rollout=EVERY)[0]
    )
    assert graph(loss=ReflexFlowLoss, rollout=EVERY, loss_inputs=disabled).loss.wants == frozenset()


def test_reflexflow_is_for_flow_matching(graph):
    """auto steps aside for DDPM; enable says so before anything is loaded."""
    ddpm = {"schedule": DDPM(), "loss": ReflexFlowLoss, "rollout": EVERY}
    assert torch.equal(values(graph, **ddpm)[0], values(graph, schedule=DDPM(), rollout=EVERY)[0])
    with pytest.raises(ValueError, match="reflexflow is for flow matching"):
        graph(**ddpm, loss_inputs={"reflexflow": "enable"})


def test_the_weights_of_reflexflow_arrive(graph):
    """Each of alpha, beta1 and beta2 changes the loss; with all off it is the ordinary one."""
    options = {"loss": ReflexFlowLoss, "rollout": EVERY}
    usual, _ = values(graph, **options)
    for change in ({"alpha": 0.0}, {"beta1": 0.0}, {"beta2": 2.0}):
        assert not torch.equal(values(graph, **options, loss_inputs=change)[0], usual)
    off, _ = values(graph, **options, loss_inputs={"alpha": 0.0, "beta1": 0.0})
    torch.testing.assert_close(off, values(graph, rollout=EVERY)[0])


@pytest.mark.parametrize("node", [DiffusionLoss, ReflexFlowLoss])
def test_gradients_reach_every_weight(graph, node):
    """The losses train the whole network."""
    wired = graph(loss=node, rollout=EVERY)
    run = Run(wired.loss)
    Step(run, 0).value(wired.loss).mean().backward()
    assert all(parameter.grad is not None for parameter in run.value(wired.model).network.parameters())


# Masks and weights


@pytest.fixture
def masked_graph(graph, wire):
    """``masked_graph(mask=..., weight=...)``: the canonical graph on batches with these."""

    def connect(loss=DiffusionLoss, rollout=None, loss_inputs=None, **extra):
        wired = graph()
        plain = wired.dataset

        def step(step, **inputs):
            return replace(plain.function(step, **inputs), **extra)

        dataset = replace(plain, function=step)
        batch = wire(NoisyBatch, dataset=dataset, schedule=wired.schedule)
        if rollout:
            batch = wire(Rollout, batch=batch, model=wired.model, **rollout)
        return wire(loss, batch=batch, model=wired.model, **(loss_inputs or {}))

    return connect


EVERY_LOSS = [
    pytest.param(DiffusionLoss, None, {}, id="diffusion"),
    pytest.param(DiffusionLoss, EVERY, {"target": "trajectory"}, id="trajectory"),
    pytest.param(ReflexFlowLoss, None, {"reflexflow": "disable"}, id="plain"),
    pytest.param(ReflexFlowLoss, EVERY, {}, id="spec"),
    pytest.param(ReflexFlowLoss, None, {"objective": "defar"}, id="defar"),
]


@pytest.mark.parametrize(("loss", "rollout", "inputs"), EVERY_LOSS)
def test_weights_count_in_every_loss(masked_graph, pull, loss, rollout, inputs):
    """Item by item; the reported parts stay as they are."""
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0])
    plain, _ = pull(masked_graph(loss, rollout, inputs))
    weighed, _ = pull(masked_graph(loss, rollout, inputs, weight=weight))
    assert torch.equal(weighed, plain * weight)


@pytest.mark.parametrize(("loss", "rollout", "inputs"), EVERY_LOSS)
def test_masks_count_in_every_loss(masked_graph, pull, loss, rollout, inputs):
    """A mask that shows all changes nothing but rounding, one that shows half changes the loss."""
    plain, _ = pull(masked_graph(loss, rollout, inputs))
    whole, _ = pull(masked_graph(loss, rollout, inputs, mask=torch.ones(4, 1, 8, 8)))
    half = torch.ones(4, 1, 8, 8)
    half[..., 4:] = 0
    part, _ = pull(masked_graph(loss, rollout, inputs, mask=half))
    torch.testing.assert_close(whole, plain)
    assert (part / plain - 1).abs().min() > 1e-3

"""The loss nodes."""

import pytest
import torch
from comfyui_rollout.diffusion.schedules import DDPM
from comfyui_rollout.nodes import DiffusionLoss, ReflexFlowLoss
from comfyui_rollout.training.stream import Run, Step

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

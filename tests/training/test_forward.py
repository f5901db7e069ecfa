"""How a forward is computed: in which precision, and where what it saves waits; no bit of it is another's."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run, Stream
from regressions import same, trained
from torch import nn


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_rollout_before_the_training_forward_changes_no_gradient(regression, precision):
    """Its converted weights, made without gradient, must not serve the training forward."""

    def rolled_first(wired):
        loss, model, network = wired

        def function(step, model):
            with torch.no_grad():
                model.network(torch.ones(2, 4))
            return loss.function(step, model)

        return Stream(function, {"model": model}, "loss", "Loss"), model, network

    plain, _ = trained(regression(), precision=precision)
    rolled, _ = trained(rolled_first(regression()), precision=precision)
    assert same(plain, rolled)
    assert not same(plain, list(regression()[2].parameters()))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_keeps_whole_weights(regression, precision):
    """The forward pass is in half precision, the weights stay float32, and the loss goes down as in float32."""
    seen = []
    loss, model, network = regression()
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    _, steps = trained((loss, model, network), steps=20, precision=precision)
    expected = trained(regression(), steps=20)[1]
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    last, wanted = (float(taken[-1].metrics["loss"]) for taken in (steps, expected))
    assert last == pytest.approx(wanted, rel=0.02)


def test_what_waits_elsewhere_changes_no_bit(regression, monkeypatch):
    """What autograd saves goes through the hooks, weights aside, and comes back as it was."""
    moved = []
    hooks = torch.autograd.graph.save_on_cpu(pin_memory=False)
    pack = hooks.pack_hook
    hooks.pack_hook = lambda tensor: moved.append(tensor.data_ptr()) or pack(tensor)
    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", lambda pin_memory: hooks)
    layers = [layers_with_dropout() for _ in range(2)]
    plain, away = (
        trained(regression(network), steps=3, offload_activations=offload)
        for network, offload in zip(layers, (False, True), strict=True)
    )
    assert same(plain[0], away[0])
    assert [step.metrics["loss"] for step in plain[1]] == [step.metrics["loss"] for step in away[1]]
    assert moved
    assert not {weight.data_ptr() for weight in layers[1].parameters()} & {*moved}


def layers_with_dropout():
    with global_seed(1):
        return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))


def test_blocks_that_are_swapped_do_not_go_with_activations_that_wait():
    """Their weights would be taken for activations."""
    model = Stream(lambda step: SimpleNamespace(swap=object()), node_id="model")
    with pytest.raises(ValueError, match=r"^offload_activations: swap in Load Pretrained .* set it to 0"):
        prepare(model, model, OptimizerSettings(), steps=1, run=Run(model), offload_activations=True)

"""A saved state put into a trainer: all of it, to the bit, or nothing."""

import pytest
import torch
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.loading.load import load_network
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.state import find_state, save_state, tensors_of
from comfyui_rollout.training.stream import Run, Stream
from safetensors.torch import load_file
from torch import nn
from trained import go, same


def test_the_loss_scale_goes_on_too(trainer, tmp_path):
    """fp16 finds its scale over thousands of steps."""
    first = trainer(precision="fp16")
    go(first, 2)
    first.scaler.update(new_scale=1024.0)
    save_state(tmp_path, first)
    second = trainer(precision="fp16", state=find_state(tmp_path))
    assert second.scaler.state_dict() == first.scaler.state_dict()
    assert second.scaler.get_scale() == 1024.0


def test_averages_may_begin_later(trainer, tmp_path):
    """Switched on with a resume, they begin at the weights as they are; switched off, they are left out."""
    plain = trainer()
    go(plain, 3)
    save_state(tmp_path, plain)
    averaging = trainer(state=find_state(tmp_path), ema_decay=0.9)
    for shadow, weight in zip(averaging.run.averaged_weights.shadow_params, averaging.parameters, strict=True):
        assert torch.equal(shadow, weight)
    go(averaging, 2)
    save_state(tmp_path, averaging)
    assert find_state(tmp_path).averaged_updates == 2
    assert trainer(state=find_state(tmp_path)).run.averaged_weights is None


@pytest.fixture
def lora(tiny_pipeline):
    """``lora(state=None)``: a trainer of a new LoRA on a pretrained network in bfloat16, with dropout."""
    source = Source(str(tiny_pipeline("sd")))

    def make(state=None):
        model = load_network(source, inspect(source), "cpu")
        add_adapter(model, AdapterSettings("own", rank=2, targets=("to_q", "to_v"), dropout=0.5), seed=1)

        def loss(step, model):
            x = torch.randn(2, *model.latent_shape, generator=step.generator())
            text = torch.ones(2, 3, model.network.config.cross_attention_dim)
            return model(x, torch.tensor([500.0, 20.0]), {"text": text}).float().square().flatten(1).mean(1)

        stream = Stream(lambda step: model, node_id="model")
        loss, settings = Stream(loss, {"model": stream}, "loss"), OptimizerSettings(learning_rate=0.01)
        return prepare(loss, stream, settings, steps=12, run=Run(loss), state=state, ema_decay=0.9, precision="bf16")

    return make


def test_an_adapter_goes_on_to_the_bit(lora, tmp_path):
    """Its state holds the adapter alone, and the frozen network comes from its own files."""
    whole, first = lora(), lora()
    losses = go(whole, 6)
    go(first, 3)
    save_state(tmp_path, first)
    second = lora(find_state(tmp_path))
    assert go(second, 3) == losses[3:]
    assert same(tensors_of(second), tensors_of(whole))
    assert all("lora" in name for name in tensors_of(whole))


def test_a_state_that_does_not_fit_changes_nothing(trainer, tmp_path):
    """It is refused before the first weight is touched."""
    begun = trainer()
    go(begun, 2)
    save_state(tmp_path, begun)
    other = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"trained another model: .*e\.g\. 0\.bias, which is \(6,\) there and \(5,\)"):
        trainer(other, state=find_state(tmp_path))
    assert same(other.state_dict(), before)


def test_what_a_node_keeps_goes_on_to_the_bit(counting, tmp_path):
    """Tensors in the weights file, numbers among the facts; the value is made anew and then has its state again."""
    whole, _ = counting()
    losses = go(whole, 8)
    first, _ = counting()
    go(first, 5)
    save_state(tmp_path, first)
    assert find_state(tmp_path).kept == {"7:3": {"count": 5}}
    assert "kept.7:3.total" in load_file(find_state(tmp_path).path)
    second, made = counting(find_state(tmp_path))
    assert go(second, 3) == losses[5:]
    assert made[-1].count == 8


def test_a_kept_value_that_was_not_asked_for_again_is_not_lost(counting, tmp_path):
    """A stop right after a resume, before any step, keeps what the run before had kept."""
    first, _ = counting()
    go(first, 2)
    save_state(tmp_path, first)
    save_state(tmp_path, counting(find_state(tmp_path))[0])
    assert find_state(tmp_path).kept == {"7:3": {"count": 2}}
    second, made = counting(find_state(tmp_path))
    go(second, 1)
    assert made[-1].count == 3


def test_going_back_forgets_what_was_kept_since(counting, tmp_path):
    """A teacher that was made after the state would be another one than that of a run resumed from it."""
    trained, made = counting()
    save_state(tmp_path, trained)
    losses = go(trained, 3)
    state = find_state(tmp_path)
    state.restore(trained)
    trained.go_to(state.step)
    assert go(trained, 3) == losses
    assert [counter.count for counter in made] == [3, 3]

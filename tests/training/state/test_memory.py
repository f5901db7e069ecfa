"""What an optimizer remembers, taken from it and given back."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.training.optimizers import OptimizerSettings, installed
from comfyui_rollout.training.state import find_state, memory_of, parted, save_state, tensors_of
from trained import go, same


@pytest.mark.parametrize("name", installed())
def test_a_restored_trainer_goes_on_to_the_bit(trainer, name, tmp_path):
    """Whatever the optimizer remembers, with dropout, averages, accumulation and a rate that changes at every step."""
    rate, averages = 1.0 if name == "prodigy" else 0.01, name != "adamw_schedule_free"
    settings = OptimizerSettings(name, learning_rate=rate, lr_schedule="cosine", warmup_steps=4)
    options = {"settings": settings, "seed": 5, "ema_decay": 0.9 if averages else 0.0, "accumulation": 2}
    whole, first = trainer(**options), trainer(**options)
    losses = go(whole, 12)
    assert go(first, 5) == losses[:5]
    save_state(tmp_path, first)
    second = trainer(**options, state=find_state(tmp_path))
    assert (second.done, go(second, 7)) == (5, losses[5:])
    assert same(tensors_of(second), tensors_of(whole))
    assert parted(memory_of(second))[1] == parted(memory_of(whole))[1]
    if averages:
        assert second.run.averaged_weights.optimization_step == whole.run.averaged_weights.optimization_step == 12


def test_a_state_of_the_former_adafactor_goes_on(trainer, tmp_path):
    """Runs that torch's Adafactor made keep what they remember, under the names of transformers'."""
    settings = OptimizerSettings("adafactor", learning_rate=0.01, relative_step=True)
    former = trainer(settings=settings)
    go(former, 5)
    save_state(tmp_path, former)
    resumed = trainer(settings=replace(settings, relative_step=False), state=find_state(tmp_path))
    old, new = memory_of(former), memory_of(resumed)
    assert torch.equal(new["0.weight.exp_avg_sq_row"], old["0.weight.row_var"].squeeze(1))
    assert torch.equal(new["0.weight.exp_avg_sq_col"], old["0.weight.col_var"].squeeze(0))
    assert torch.equal(new["0.bias.exp_avg_sq"], old["0.bias.variance"])
    assert new["0.weight.step"] == 5
    go(resumed, 2)
    save_state(tmp_path, resumed)
    with pytest.raises(ValueError, match=r"^resume: this run was trained without relative_step: switch it off"):
        trainer(settings=settings, state=find_state(tmp_path))

"""A state taken from a trainer and written: only what is needed, and whole or not at all."""

import json

import pytest
import torch
from comfyui_rollout.files.weights import read_metadata
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.state import find_state, save_state, size_of, snapshot, tensors_of
from comfyui_rollout.training.stream import Run, Stream
from safetensors.torch import load_file, save_file
from torch import nn
from trained import dropout_network, go, names, same


def test_saving_changes_nothing(trainer, tmp_path):
    """A state is a look at the training, not a part of it."""
    quiet, looked_at = trainer(), trainer()
    losses = go(quiet, 12)
    for loss in losses:
        assert go(looked_at, 1) == [loss]
        save_state(tmp_path, looked_at)


class Adapted(nn.Module):
    """A network with a part that is trained and one that is not."""

    def __init__(self):
        super().__init__()
        self.body, self.adapter = dropout_network(), nn.Linear(3, 3)

    def forward(self, x):
        return self.adapter(self.body(x))


def test_only_what_is_trained_is_kept(regression, tmp_path):
    """Frozen weights come from where they came from: the state of an adapter is as small as the adapter."""

    def adapted():
        loss, model, _ = regression(Adapted())
        live = model.function(None)
        live.adapters = ("adapter",)
        return loss, Stream(lambda step: live, node_id="model")

    (loss, model), settings = adapted(), OptimizerSettings(learning_rate=0.01)
    begun = prepare(loss, model, settings, steps=4, run=Run(loss, model), ema_decay=0.9)
    go(begun, 2)
    save_state(tmp_path, begun)
    assert {name.split(".")[1] for name in load_file(find_state(tmp_path).path)} == {"adapter"}
    loss, model = adapted()
    resumed = prepare(loss, model, settings, steps=4, run=Run(loss, model), state=find_state(tmp_path), ema_decay=0.9)
    assert same(tensors_of(resumed), tensors_of(begun))


def test_a_state_is_tensors_and_plain_facts(trainer, tmp_path):
    """safetensors with JSON in the header, to be opened by anything; nothing is ever unpickled."""
    begun = trainer(seed=9)
    go(begun, 2)
    save_state(tmp_path, begun, "ab12")
    assert names(tmp_path / "state") == ["state.json", "step_000002.safetensors"]
    assert json.loads((tmp_path / "state" / "state.json").read_text()) == {"states": ["step_000002.safetensors"]}
    path = tmp_path / "state" / "step_000002.safetensors"
    facts = {
        "step": 2,
        "seed": 9,
        "optimizer": "adamw",
        "averaged_updates": None,
        "numbers": {},
        "loss_scale": {},
        "kept": {},
    }
    assert json.loads(read_metadata(path)["facts"]) == {**facts, "run": "ab12"}
    tensors = load_file(path)
    assert {name.rpartition(".")[2] for name in tensors if name.startswith("optimizer.0.weight")} == {
        *("exp_avg", "exp_avg_sq", "step")
    }


def test_a_save_that_fails_keeps_the_state_before(trainer, tmp_path, monkeypatch):
    """A full disk in the middle of the night: the last whole state is still there."""
    begun = trainer()
    go(begun, 2)
    save_state(tmp_path, begun)
    before = load_file(find_state(tmp_path).path)

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    go(begun, 1)
    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_state(tmp_path, begun)
    monkeypatch.setattr("safetensors.torch.save_file", save_file)
    assert find_state(tmp_path).step == 2
    assert same(load_file(find_state(tmp_path).path), before)
    assert names(tmp_path / "state") == ["state.json", "step_000002.safetensors"]


def test_the_size_of_a_state_is_its_bytes(trainer, tmp_path):
    """By it room on the disk is looked for, and it is told how long a state takes; a file has little beside."""
    assert size_of({"a": torch.zeros(3, 2), "b": torch.zeros(5, dtype=torch.bfloat16)}) == 3 * 2 * 4 + 5 * 2
    begun = trainer()
    go(begun, 1)
    saved = snapshot(begun).save(tmp_path)
    assert 0 < saved.path.stat().st_size - snapshot(begun).size < 5000

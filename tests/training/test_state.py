"""The saved state of a training, from plain Python."""

import json
from dataclasses import replace

import pytest
import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.files.weights import read_metadata
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.loading.load import load_network
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.optimizers import OptimizerSettings, installed
from comfyui_rollout.training.state import find_state, memory_of, parted, point_at, save_state, states_in, tensors_of
from comfyui_rollout.training.stream import Run, Stream
from safetensors.torch import load_file, save_file
from torch import nn


def network():
    with global_seed(1):
        return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))


@pytest.fixture
def trainer(regression):
    """``trainer(network, state=..., **options)``: ready for 12 steps; a new one each time, as another program's."""

    def make(own=None, settings=None, state=None, seed=0, **options):
        loss, model, _ = regression(own or network())
        settings = settings or OptimizerSettings(learning_rate=0.01)
        return prepare(loss, model, settings, steps=12, run=Run(loss, model, seed=seed), state=state, **options)

    return make


def go(trainer, steps):
    """The losses of the next steps."""
    updates = trainer.updates()
    return [float(next(updates).metrics["loss"]) for _ in range(steps)]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


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


def test_saving_changes_nothing(trainer, tmp_path):
    """A state is a look at the training, not a part of it."""
    quiet, looked_at = trainer(), trainer()
    losses = go(quiet, 12)
    for loss in losses:
        assert go(looked_at, 1) == [loss]
        save_state(tmp_path, looked_at)


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


class Adapted(nn.Module):
    """A network with a part that is trained and one that is not."""

    def __init__(self):
        super().__init__()
        self.body, self.adapter = network(), nn.Linear(3, 3)

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


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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


def test_the_newest_states_are_kept(trainer, tmp_path):
    """So many, and each can be gone back to; then those of later steps are no more gone on from."""
    begun, whole = trainer(), trainer()
    losses = go(whole, 12)
    for _ in range(4):
        go(begun, 1)
        save_state(tmp_path, begun, keep=3)
    assert [path.name for path in states_in(tmp_path)] == [f"step_00000{step}.safetensors" for step in (2, 3, 4)]
    assert find_state(tmp_path).step == 4
    with pytest.raises(ValueError, match="no state after step 1; it has some after: 2, 3, 4"):
        find_state(tmp_path, 1)
    back = trainer(state=find_state(tmp_path, 2))
    assert go(back, 3) == losses[2:5]
    point_at(find_state(tmp_path, 2).path)
    assert find_state(tmp_path).step == 2
    save_state(tmp_path, trainer(state=find_state(tmp_path)), keep=3)
    assert [path.name for path in states_in(tmp_path)] == ["step_000002.safetensors", "step_000002-2.safetensors"]
    assert find_state(tmp_path).path.name == "step_000002-2.safetensors"


def as_before(folder):
    """The newest state as versions before kept it."""
    state = find_state(folder)
    facts = {k: v for k, v in json.loads(read_metadata(state.path)["facts"]).items() if k != "run"}
    (folder / "state" / "state.json").write_text(json.dumps(facts))
    save_file(load_file(state.path), folder / "state" / "state.safetensors")
    for path in states_in(folder):
        path.unlink()


def test_a_state_of_a_version_before_goes_on_to_the_bit(trainer, tmp_path):
    """People have such runs; the next state is of the new kind, and the old one goes when that is there."""
    whole, first = trainer(ema_decay=0.9), trainer(ema_decay=0.9)
    losses = go(whole, 12)
    go(first, 5)
    save_state(tmp_path, first)
    as_before(tmp_path)
    assert names(tmp_path / "state") == ["state.json", "state.safetensors"]
    second = trainer(state=find_state(tmp_path), ema_decay=0.9)
    assert go(second, 7) == losses[5:]
    save_state(tmp_path, second)
    assert names(tmp_path / "state") == ["state.json", "step_000012.safetensors"]
    assert find_state(tmp_path).step == 12


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


# What nodes keep from step to step


class Counter:
    """Something that outlives a step: it counts, and adds up what it saw."""

    def __init__(self):
        self.count, self.total = 0, torch.zeros(3)

    def see(self, value):
        self.count, self.total = self.count + 1, self.total + value.detach()

    def state_dict(self):
        return {"count": self.count, "total": self.total}

    def load_state_dict(self, state):
        self.count, self.total = state["count"], state["total"].clone()


@pytest.fixture
def counting(regression):
    """``counting(state)``: a trainer whose loss depends on what a node has kept, and the counters that were made."""
    made = []

    def make(state=None, node_id="7:3"):
        loss, model, _ = regression(network())

        def kept(step, loss, model):
            counter = step.keep(lambda: made.append(Counter()) or made[-1])
            counter.see(loss[:3])
            return loss * (1 + counter.total.mean() / counter.count)

        counted = Stream(kept, {"loss": loss, "model": model}, node_id, "Counter")
        run = Run(counted, model)
        settings = OptimizerSettings("sgd", learning_rate=0.01)
        return prepare(counted, model, settings, steps=12, run=run, state=state), made

    return make


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


def test_a_state_of_before_goes_on_without_what_nodes_keep(counting, tmp_path):
    """States of earlier versions say nothing of it: it begins anew."""
    first, _ = counting()
    go(first, 2)
    save_state(tmp_path, first)
    as_before(tmp_path)
    path = tmp_path / "state" / "state.json"
    facts = json.loads(path.read_text())
    del facts["kept"]
    path.write_text(json.dumps(facts))
    second, made = counting(find_state(tmp_path))
    go(second, 1)
    assert made[-1].count == 1

"""Several processes train as one with their global batch; what fails in one ends all; states know no number of them."""

import os
import signal
import time
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_rollout.data.data import Digits, next_batch
from comfyui_rollout.data.encodings.texts import concatenated
from comfyui_rollout.diffusion import seeds
from comfyui_rollout.diffusion.noisy_batch import noisy_batch
from comfyui_rollout.diffusion.rollout import RolloutPlan, roll_out
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import solver
from comfyui_rollout.files.weights import read_weights
from comfyui_rollout.hosts.processes import Processes, join
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import UNet
from comfyui_rollout.models.saving import load_model
from comfyui_rollout.models.sharded import here, whole
from comfyui_rollout.nodes.rollouts.loss import ReflexFlowLoss
from comfyui_rollout.nodes.rollouts.reflow import Reflow
from comfyui_rollout.nodes.rollouts.rollout import Rollout
from comfyui_rollout.nodes.rollouts.schedule import NoisyBatch
from comfyui_rollout.runs.fit import fit
from comfyui_rollout.runs.looks import Checkpoint, Tell
from comfyui_rollout.runs.run_folder import facts_in
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.sharing import over_processes
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import Run, Step, Stream
from together import together

ROLLOUT = {
    "max_step_offset": 4, "probability": 0.6, "sampler": "unipc", "order": 2, "step_size": 20.0, "strategy": "uniform",
    "start_step": 0, "ramp_steps": 0, "prob_start": 0.0, "prob_end": 0.5, "ramp_shape": "linear",
}  # fmt: skip
REFLEXFLOW = {
    "reflexflow": "auto", "alpha": 1.0, "beta1": 1.0, "beta2": 1.0, "objective": "spec", "target": "clean",
}  # fmt: skip
ONTO_ITS_PATH = {"target": "trajectory", "beta1": 0.0}
"""What rollouts want that stand still."""
LORA = {"adapter": AdapterSettings("mine", rank=4, targets=("conv1", "conv2"))}
LORA_FILE = "pytorch_lora_weights.safetensors"


def wired(size, trouble=None, adapter=None, **rollout):
    """(loss, model, network): digits, Rollout and ReflexFlow, in float64, where sums in another order are alike."""
    with seeds.global_seed(0):
        live = UNet.create(channels=1, size=8, classes=10, width=8, depth=1)
    if adapter:
        add_adapter(live, adapter, seed=0)
    live.network.double()
    digits = Digits()
    digits.latents = digits.latents.double()

    def batch(step, dataset, batch_size):
        factor = trouble(step) if trouble else None
        batch = next_batch(step, dataset, batch_size)
        return batch if factor is None else replace(batch, latents=factor * batch.latents)

    data = Stream(batch, {"dataset": digits, "batch_size": size}, "1", "Digits", about=digits.info)
    about = type("About", (), {"classes": 10, "null_class": False, "pretrained": None})()
    model = Stream(lambda step: live, {}, "4", "Model", about=about)
    noisy = NoisyBatch().build(unique_id="5", dataset=data, schedule=FlowMatching())[0]
    if pairs := rollout.pop("reflow", None):
        rolled = Reflow().build(unique_id="6", batch=noisy, model=model, **pairs)["result"][0]
    else:
        rolled = Rollout().build(unique_id="6", batch=noisy, model=model, **{**ROLLOUT, **rollout})["result"][0]
    towards = ONTO_ITS_PATH if rollout.get("rollout") == "none" else {}
    loss = ReflexFlowLoss().build(unique_id="7", batch=rolled, model=model, **{**REFLEXFLOW, **towards})["result"][0]
    return loss, model, live.network


def train(size, steps=3, folder=None, resume=None, trouble=None, rollout=None, options=None):
    """The weights after a training, the losses of its steps, and all numbers that it has told of them."""
    torch.set_default_dtype(torch.float64)
    loss, model, network = wired(size, trouble, **(rollout or {}))
    rows = []
    fit(
        loss,
        model,
        OptimizerSettings("adamw", learning_rate=2e-3),
        steps=steps,
        folder=folder,
        resume=find_state(resume) if resume else None,
        looks=[Tell(rows.extend), Checkpoint()],
        device="cpu",
        **{"accumulation": 2, "ema_decay": 0.9, **(options or {})},
    )
    weights = {name: whole(weight.detach()).numpy() for name, weight in network.named_parameters()}
    torch.set_default_dtype(torch.float32)
    numbers = [{name: value for name, value in row.items() if name not in OF_THE_MACHINE} for row in rows]
    return weights, [row["loss"] for row in rows], numbers


OF_THE_MACHINE = ("seconds", "steps_per_second", "machine")


def furthest(one, other):
    """How far the weights and losses of two trainings are apart."""
    weights = [float(np.abs(one[0][name] - other[0][name]).max()) for name in one[0]]
    return max(weights + [abs(first - second) for first, second in zip(one[1], other[1], strict=True)])


KINDS = {
    "fresh": {},
    "persistent, with forwards of their own": {"rollout": "persistent", "sampler": "heun"},
    "copies beside": {"keep_base": True, "renoise": "same_noise", "renoise_levels": 2, "copies_weight": 0.3},
    "new noise": {"sampler": "euler", "stochastic": "cps"},
    "none, at a sampler's levels": {"rollout": "none", "from_noise": True, "step_size": 200.0, "step_size_max": 300.0},
    "pairs of the model's own": {
        "reflow": {"start": 0.0, "probability": 0.7, "pairs": 12, "steps": 2, "sampler": "euler", "order": 1}
    },
}


@pytest.mark.parametrize(("count", "kind"), [(2, kind) for kind in KINDS] + [(4, "fresh")])
def test_processes_train_as_one_with_their_global_batch(count, kind):
    """With Rollout, ReflexFlow, accumulation and EMA: the same losses and weights, to 1e-6, and alike in all."""
    torch.set_default_dtype(torch.float64)
    one = train(8, rollout=KINDS[kind])
    many = together(count, train, 8 // count, 3, None, None, None, KINDS[kind])
    assert furthest(one, many[0]) < 1e-6
    assert furthest(many[0], many[-1]) == 0
    for row, expected in zip(many[0][2], one[2], strict=True):
        assert row == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["fresh", "persistent, with forwards of their own"])
def test_weights_in_parts_train_as_whole_ones(kind):
    """FSDP2: every forward is an exchange, and rollouts are ragged; nobody waits for ever, the result is the same."""
    one = train(8, rollout=KINDS[kind])
    many = together(2, train, 4, 3, None, None, None, KINDS[kind], fsdp=True)
    assert furthest(one, many[0]) < 1e-6


@pytest.mark.parametrize("fsdp", [False, True], ids=["whole", "in parts"])
def test_a_lora_on_a_frozen_base(tmp_path, fsdp):
    """The adapter's weights are those of one process, to 1e-6, and its file is whole; the base is as it was."""
    before = train(4, 0, rollout=LORA)[0]
    one = train(4, 4, tmp_path / "one", rollout=LORA)
    many = together(2, train, 2, 4, tmp_path / "many", None, None, LORA, fsdp=fsdp)[0]
    assert furthest(one, many) < 1e-6
    adapted = {name for name, weight in many[0].items() if not np.array_equal(weight, before[name])}
    assert adapted
    assert adapted == {name for name in before if "lora" in name}
    files = [read_weights(tmp_path / f"{run}_00001" / "model" / LORA_FILE) for run in ("one", "many")]
    assert files[0].keys() == files[1].keys()
    for name, value in files[0].items():
        torch.testing.assert_close(files[1][name], value, atol=1e-6, rtol=0)


def a_lora_of_16_bits():
    """The share of the frozen base's weights that are here, and a training forward's loss before and after a step."""
    processes = join("cpu")
    with seeds.global_seed(0):
        live = UNet.create(channels=1, size=8, classes=0, width=8, depth=1)
    live.network.bfloat16()
    add_adapter(live, LORA["adapter"], seed=0)
    live.prepare_training()
    optimizer = torch.optim.AdamW(list(live.trained.values()), lr=1e-2)
    over_processes(live.network, [optimizer], "adamw", processes)
    x, level = torch.ones(2, 1, 8, 8), torch.full((2,), 500.0)

    def loss():
        with torch.autocast("cpu", torch.bfloat16):
            return (live(x, level, {}).float() ** 2).mean()

    before = loss()
    before.backward()
    optimizer.step()
    frozen = [weight for weight in live.network.parameters() if not weight.requires_grad]
    share = sum(here(weight).numel() for weight in frozen) / sum(weight.numel() for weight in frozen)
    return share, before.item(), loss().item()


def test_a_frozen_base_of_16_bits_is_held_in_parts_too():
    """It is what a LoRA's memory goes into; its adapter, of 32 bits, learns in the same layers."""
    share, before, after = together(2, a_lora_of_16_bits, fsdp=True)[0]
    assert share == pytest.approx(0.5, abs=0.05)
    assert after < before


def in_words(change):
    """What is said of a model that cannot be held in parts."""
    live = UNet.create(channels=1, size=8, classes=0, width=8, depth=1)
    change(live)
    loss, model, _ = wired(4)
    with pytest.raises(ValueError, match="FSDP") as raised:
        prepare(
            loss, replace(model, function=lambda step: live), OptimizerSettings("adamw"), steps=1, run=InParts(loss)
        )
    return str(raised.value)


class InParts(Run):
    """As under FSDP, before anything is exchanged."""

    def __init__(self, *streams):
        super().__init__(*streams)
        self.processes = Processes()
        self.processes.count, self.processes.shards = 2, True


def test_what_cannot_be_held_in_parts_is_refused(monkeypatch):
    """Before anything is trained, by the input that must change: squeezed weights, and blocks that come and go."""
    assert in_words(lambda live: setattr(live, "swap", SimpleNamespace(device="cpu"))).startswith("swap: ")
    monkeypatch.setattr("comfyui_rollout.training.sharing.is_squeezed", lambda weight: True)
    assert in_words(lambda live: None).startswith("quantize: ")


@pytest.mark.parametrize(("before", "after", "fsdp"), [(2, 1, False), (2, 4, False), (1, 2, True)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, before, after, fsdp):
    """One format of states: the second half of a training, chains included, whatever they are and hold."""
    chains = {"rollout": "persistent"}
    through = train(4, 4, tmp_path / "through", rollout=chains)
    train_with(before, 2, tmp_path / "run", None, chains)
    rest = train_with(after, 4, None, tmp_path / "run_00001", chains, fsdp=fsdp)
    assert furthest((through[0], through[1][2:]), rest) < 1e-6
    expected, state = (read_weights(find_state(tmp_path / f"{run}_00001").path) for run in ("through", "run"))
    assert state.keys() == expected.keys()
    assert {"weights", "averaged", "optimizer", "kept"} == {name.partition(".")[0] for name in state}
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, atol=1e-6, rtol=1e-6)
    assert facts_in(tmp_path / "run_00001")["status"] == "finished"
    assert load_model(tmp_path / "run_00001" / "model").network_class == "UNet2DModel"


def train_with(count, steps, folder, resume, rollout, fsdp=False):
    """A training whose global batch has 4 items, by so many processes."""
    arguments = (4 // count, steps, folder, resume, None, rollout)
    return train(*arguments) if count == 1 else together(count, train, *arguments, fsdp=fsdp)[0]


class Captioned(Digits):
    """Digits with captions of one to seven tokens, as long as the number of the picture says."""

    def batch(self, items, generators):
        told = [
            {"text": torch.full((1, 1 + item % 7, 2), float(item)), "mask": torch.ones(1, 1 + item % 7).bool()}
            for item in items
        ]
        return replace(super().batch(items, generators), conditioning=concatenated(told))


def captions_of(size):
    """What the network is told in some batches, by the places that are here."""
    digits = Captioned()
    data = Stream(next_batch, {"dataset": digits, "batch_size": size}, "1", "Digits", about=digits.info)
    run = Run(data, processes=join("cpu"))
    batches = [Step(run, pull).value(data) for pull in range(6)]
    return [(batch.share.places.numpy(), batch.conditioning["text"].numpy()) for batch in batches]


def test_captions_are_as_long_as_in_one_process():
    """Whatever goes by their length, such as which chains fit in a batch, is so the same in all processes."""
    one = captions_of(4)
    for part in together(2, captions_of, 2):
        for (_, whole_text), (places, text) in zip(one, part, strict=True):
            assert np.array_equal(text, whole_text[places])


def fail_in_the_second(step):
    if os.environ["RANK"] == "1" and step.update == 1:
        raise ValueError("cats/3.jpg cannot be read")


def die_in_the_second(step):
    if os.environ["RANK"] == "1" and step.update == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def spoil_in_the_second(step):
    return float("nan") if os.environ.get("RANK", "1") == "1" and step.update == 1 else None


def test_a_bad_item_in_one_process_is_left_out_by_all(tmp_path):
    """Its step teaches nothing to anybody, and says so in the run that the first process writes."""
    many = together(2, train, 2, 3, tmp_path / "run", None, spoil_in_the_second)
    assert many[0][1][1] is None
    assert furthest((many[0][0], []), (many[1][0], [])) == 0
    assert all(np.isfinite(weight).all() for weight in many[0][0].values())
    assert facts_in(tmp_path / "run_00001")["skipped"] == [1]


FAILED = []


def too_large_once(step):
    if os.environ["RANK"] == "1" and step.update == 1 and step.index == 3 and not FAILED:
        FAILED.append(step)
        raise torch.OutOfMemoryError("out of memory")


MANY_PAIRS = {"reflow": {"start": 0.0, "probability": 0.7, "pairs": 99, "steps": 2, "sampler": "euler", "order": 1}}


@pytest.mark.parametrize("rollout", [{}, MANY_PAIRS], ids=["rollouts", "pairs, which are exchanged amid a batch"])
def test_who_runs_out_of_memory_has_all_compute_in_parts(rollout):
    """Amid an update, in its second batch: the others are told instead of waiting, and the result is the same."""
    one = train(8, rollout=rollout)
    many = together(2, train, 4, 3, None, None, too_large_once, rollout, {"on_out_of_memory": "halve"}, watchdog=60)
    assert furthest(one, many[0]) < 1e-6


@pytest.mark.parametrize("fsdp", [False, True], ids=["whole", "in parts"])
@pytest.mark.parametrize(
    ("trouble", "words"),
    [(fail_in_the_second, "process 1: node 1 (Digits), step 1: cats/3.jpg cannot be read"),
     (die_in_the_second, "process 1 ended without a word")],
    ids=["fails", "is killed"],
)  # fmt: skip
def test_one_process_failing_ends_all_in_seconds_with_its_message(tmp_path, trouble, words, fsdp):
    """Not after a collective's timeout, and not with words about a collective; the run says it too."""
    begun = time.monotonic()
    found = together(2, train, 2, 50, tmp_path / "run", None, trouble, fsdp=fsdp, watchdog=90)
    assert words in (found[0] or words)  # where it waits in a collective, it is ended there
    assert time.monotonic() - begun < 80
    facts = facts_in(tmp_path / "run_00001")
    assert facts["status"] == "failed"
    assert words in facts["message"]


LENGTHS = (
    [4, 4, 4, 4, 0, 0, 0, 0],  # all with the first
    [0, 0, 0, 0, 0, 0, 0, 1],  # none but one, and that with the last
    [0] * 8,
    [0, 0, 1, 1, 2, 2, 3, 4],
)
SIZES = {2: ([4, 4], [7, 1]), 4: ([2, 2, 2, 2], [1, 5, 1, 1])}
"""Items of each process, also where they are not as many."""


def adversarial():
    """Rollouts over items that were dealt as badly as can be; FSDP's forwards must be as many for all."""
    processes = join("cpu")
    with seeds.global_seed(0):
        live = UNet.create(channels=1, size=8, classes=0, width=8, depth=1)
    optimizer = torch.optim.AdamW(live.network.parameters())
    over_processes(live.network, [optimizer], "adamw", processes)
    schedule = FlowMatching()
    for lengths, sizes in product(LENGTHS, SIZES[processes.count]):
        own = torch.tensor(lengths).split(sizes)[processes.rank]
        latents, timestep = torch.zeros(len(own), 1, 8, 8), torch.full((len(own),), 500.0, dtype=torch.float64)
        batch = noisy_batch(latents, torch.randn_like(latents), timestep, schedule, {})
        draw = RolloutPlan.place(timestep, schedule, own, torch.full_like(timestep, 20.0))
        rolled = roll_out(live, batch, draw, solver("heun"), want_clean_output=True)
        loss = (live(rolled.x, rolled.timestep.float(), {}) ** 2).mean()
        processes.settle()
        loss.backward()
        optimizer.step()
        if processes.leads:  # as when it draws samples
            with torch.no_grad():
                live(latents[:1], timestep[:1].float(), {})
        processes.any(False)
    return sum(float(whole(weight.detach()).sum()) for weight in live.network.parameters())


@pytest.mark.parametrize("count", SIZES)
def test_no_plan_of_rollouts_makes_processes_wait_for_ever(count):
    """Under a watchdog, with weights in parts: whatever the lengths are, and whoever has them."""
    found = together(count, adversarial, fsdp=True, watchdog=90)
    assert found == count * found[:1]
    assert isinstance(found[0], float)

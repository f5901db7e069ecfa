"""Optimizer Step: whole runs, their bits, their folders, and their ends."""

import itertools
import json
import re
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.data import plan_batch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.models import schedule_file
from comfyui_rollout.nodes.training.checks import check_precision
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.runs.run_folder import RunFolder
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import Run, StepError, Stream
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
EVERY = {"max_step_offset": 2, "probability": 1.0, "step_size": 50.0}
ROLLOUT_FILES = (".png", "_frames.png", "_frames.json")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def with_loss(graph, change):
    """The graph with one more node behind the loss: ``change(step, value)``."""
    loss = Stream(change, {"value": graph.loss}, "extra", "Extra")
    return SimpleNamespace(**{**vars(graph), "loss": loss})


# Bits


def test_the_same_seed_gives_the_same_weights(graph, train, same_bits):
    """The whole canonical graph, twice, to the bit; another seed gives others."""
    options = {"rollout": EVERY, "loss": nodes.ReflexFlowLoss}
    first, second, other = (train(graph(**options), seed=seed) for seed in (1, 1, 2))
    assert same_bits(first.weights, second.weights)
    assert not same_bits(first.weights, other.weights)
    drop = ("seconds", "steps_per_second", "machine")
    first, second = ([{k: v for k, v in row.items() if k not in drop} for row in rows_of(run.folder)]
                     for run in (first, second))  # fmt: skip
    assert first == second


def test_the_same_streams_can_be_trained_again(graph, train, same_bits):
    """ComfyUI keeps the streams of the first prompt: a second run from them starts from scratch."""
    wired = graph(rollout=EVERY)
    assert same_bits(train(wired).weights, train(wired).weights)


def test_inference_mode_changes_no_bit(graph, train, same_bits):
    """ComfyUI builds and runs all nodes in inference mode."""
    with torch.inference_mode():
        inside = train(graph(rollout=EVERY, loss=nodes.ReflexFlowLoss))
    assert same_bits(inside.weights, train(graph(rollout=EVERY, loss=nodes.ReflexFlowLoss)).weights)


def test_watching_and_sampling_change_no_bit(graph, train, same_bits, wire, host):
    """Pictures, samples and checkpoints on the way are looks, not changes."""
    quiet = train(graph(rollout=EVERY), preview_every=0, steps=4)
    host.wanted |= {"noisy", "rollout", "samples"}
    wired = graph(rollout=EVERY)
    samples = wire(nodes.SampleImages, model=wired.model, schedule=wired.schedule, steps=1, count=1, labels="0")
    watched = train(wired, preview_every=1, sample_every=1, checkpoint_every=1, samples=samples, steps=4)
    assert same_bits(watched.weights, quiet.weights)


def test_training_lowers_the_loss(graph, train):
    """Not merely numbers: the tiny network learns."""
    losses = [row["loss"] for row in rows_of(train(graph(), steps=60).folder)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


@pytest.mark.parametrize("family", ["unet", "dit"])
def test_half_precision_trains_both_families(graph, train, family):
    """bf16 with rollouts on the processor; the saved weights are float32."""
    run = train(graph(rollout=EVERY, model={"family": family, "width": 32}), precision="bf16", steps=2)
    assert all(value.dtype == torch.float32 for value in run.weights.values())
    assert all(value.isfinite().all() for value in run.weights.values())


def test_averaged_weights_are_saved_and_sampled(graph, train, same_bits, wire):
    """With EMA the model and the pictures are the average's; with a decay near 0 they are the live ones."""
    live, averaged = (train(graph(), steps=4, ema_decay=decay) for decay in (0.0, 0.9))
    assert not same_bits(live.weights, averaged.weights)
    distance = sum(float((live.weights[name] - averaged.weights[name]).abs().sum()) for name in live.weights)
    assert 0 < distance < 100


# The folder


@pytest.fixture
def finished(graph, train, wire):
    """A whole run with rollouts and samples."""
    wired = graph(rollout=EVERY, loss=nodes.ReflexFlowLoss)
    samples = wire(nodes.SampleImages, model=wired.model, schedule=wired.schedule, steps=1, count=1, labels="0,1")
    return train(
        wired, samples=samples, steps=12, seed=3, sample_every=5, checkpoint_every=5, preview_every=6,
        prompt={"1": {"class_type": "X"}}, extra_pnginfo={"workflow": {"nodes": ["é"]}}, run_name="mine",
    )  # fmt: skip


def test_a_run_leaves_everything_a_person_wants_to_open(finished, output):
    """Workflow, prompt, facts, metrics, curve, samples, rollouts, weights, state."""
    folder = finished.folder
    assert folder == output / "rollout" / "mine_00001"
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    model = ["config.json", WEIGHTS, "schedule.json"]
    assert found == sorted(
        [
            *("run.json", "workflow.json", "prompt.json", "metrics.jsonl", "loss.png"),
            *(f"model/{name}" for name in model),
            *("state/state.json", "state/step_000010.safetensors", "state/step_000012.safetensors", "run.lock"),
            *(f"checkpoints/step_{step}/{name}" for step in ("000005", "000010") for name in model),
            *(f"samples/RolloutSampleImages_step_{step}.png" for step in ("000005", "000010", "000012")),
            *(f"rollouts/Rollout_step_{step}{end}" for step in ("000000", "000006") for end in ROLLOUT_FILES),
        ]
    )
    assert json.loads((folder / "workflow.json").read_text(encoding="utf-8")) == {"nodes": ["é"]}
    assert json.loads((folder / "prompt.json").read_text()) == {"1": {"class_type": "X"}}
    for picture in folder.rglob("*.png"):
        with Image.open(picture) as image:
            image.load()


def test_run_json_tells_the_run(finished):
    """Enough to repeat it and to know how it ended."""
    facts = finished.facts
    expected = {"status": "finished", "seed": 3, "steps": 12, "steps_done": 12, "device": "cpu"}
    assert {name: facts[name] for name in expected} == expected
    assert facts["seconds"] > 0
    assert "torch" in facts["versions"]
    assert "message" not in facts


def test_metrics_have_a_line_a_step(finished):
    """Loss and its parts, rate, rollouts, speed, and seconds per node."""
    rows = rows_of(finished.folder)
    assert [row["step"] for row in rows] == list(range(12))
    for name in ("loss", "loss_anti_drift", "learning_rate", "gradient_norm", "rollout_length", "rollout_probability",
                 "drift", "steps_per_second"):  # fmt: skip
        assert all(isinstance(row[name], float) for row in rows), name
    assert {"Rollout", "RolloutNoisyBatch", "RolloutOptimizerStep.backward"} <= rows[0]["seconds"].keys()


def test_the_weights_carry_the_graph(finished):
    """model/*.safetensors can be dropped on the canvas."""
    with safe_open(finished.folder / "model" / WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["workflow"]) == {"nodes": ["é"]}
    assert json.loads(metadata["prompt"]) == {"1": {"class_type": "X"}}


def test_the_trained_model_goes_on_over_the_wire(finished, same_bits):
    """What comes out is the saved model, ready for Sample Images and Save Model, with its schedule beside it."""
    assert finished.model.about.has_weights
    assert same_bits(Run(finished.model).value(finished.model).network.state_dict(), finished.weights)
    assert schedule_file.load_schedule(finished.folder / "model") == FlowMatching()


def test_the_node_shows_the_curve_and_the_newest_samples(finished, output):
    """By their places below the output folder."""
    shown = [f"{image['subfolder']}/{image['filename']}" for image in finished.ui["images"]]
    assert shown == [
        "rollout/mine_00001/loss.png",
        "rollout/mine_00001/samples/RolloutSampleImages_step_000012.png",
    ]
    assert all((output / place).is_file() for place in shown)


def test_without_a_workflow_the_prompt_is_kept(graph, train):
    """A graph in API format has no canvas: workflow.json holds what there is."""
    run = train(graph(), prompt={"1": {}})
    assert json.loads((run.folder / "workflow.json").read_text()) == {"1": {}}


def test_progress_is_seen_on_every_node(graph, train, host):
    """All nodes of the step move along, and are done at the end."""
    train(graph(), steps=2)
    ids = {"RolloutDigitsDataset", "RolloutNewModel", "RolloutNoisyBatch", "RolloutDiffusionLoss"}
    for name in ids | {"RolloutOptimizerStep"}:
        assert [event for event in host.told if event[:2] == ("progress", name)] == [
            ("progress", name, done, 2) for done in (1, 2)
        ]
    assert {event[1] for event in host.told if event[0] == "finish"} >= ids


def test_the_host_gets_the_metrics_of_every_step(graph, train, host):
    """Also those of the last, short stretch."""
    train(graph(), steps=12)
    rows = [row for event in host.told if event[0] == "metrics" for row in event[2]]
    assert [row["step"] for row in rows] == list(range(12))
    assert {event[1] for event in host.told if event[0] == "metrics"} == {"RolloutOptimizerStep"}


# Stops and failures


def test_a_stopped_run_has_saved_what_it_learnt(graph, train, host, only_run, same_bits):
    """Stop ends the run within one step: status, metrics, curve and the weights of exactly that step."""
    host.stop_after = 3
    with pytest.raises(Interrupted, match="stopped by the user"):
        train(graph(), steps=100)
    run = only_run()
    assert (run.facts["status"], run.facts["message"]) == ("interrupted", "stopped by the user")
    assert run.facts["steps_done"] == 3
    assert len(rows_of(run.folder)) == 3
    assert (run.folder / "loss.png").is_file()
    host.stop_after, host.told = None, []
    assert same_bits(load_file(run.folder / "model" / WEIGHTS), train(graph(), steps=3).weights)


def test_a_run_stopped_before_its_first_step_leaves_no_model(graph, train, host, only_run):
    """There is nothing worth saving, and the folder says so."""
    host.stop_after = 0
    with pytest.raises(Interrupted):
        train(graph())
    run = only_run()
    assert (run.facts["status"], run.facts["steps_done"]) == ("interrupted", 0)
    assert not (run.folder / "model").exists()


def test_a_failed_run_names_node_and_step_and_keeps_the_rest(graph, train, only_run):
    """An error in the middle: one clear message, in run.json too, and the weights of the steps before it."""

    def fail(step, value):
        if step.update == 2:
            raise ValueError("boom")
        return value

    with pytest.raises(StepError, match=r"^node extra \(Extra\), step 2: boom$"):
        train(with_loss(graph(), fail), steps=5)
    run = only_run()
    assert (run.facts["status"], run.facts["message"]) == ("failed", "node extra (Extra), step 2: boom")
    assert run.facts["steps_done"] == 2
    assert (run.folder / "model" / WEIGHTS).is_file()


def test_a_loss_that_is_no_number_ends_the_run(graph, train, only_run):
    """Within a few steps, naming the first bad one."""

    def spoil(step, value):
        return value * float("nan") if step.update == 4 else value

    with pytest.raises(StepError, match=r"^node .* \(Optimizer Step\), step 4: the loss is not a finite number"):
        train(with_loss(graph(), spoil), steps=100, on_bad_step="stop")
    run = only_run()
    assert [row["loss"] is None for row in read_metrics(run.folder)[:6]] == [False] * 4 + [True] * 2
    assert run.facts["status"] == "failed"
    assert "step 4" in run.facts["message"]
    assert not (run.folder / "model").exists()


def diverging_at(update):
    return lambda step, value: value * float("nan") if step.update == update else value


@pytest.mark.filterwarnings("ignore")  # those of the compiler are not ours
def test_a_compiled_network_is_compiled_once(graph, train, same_bits, monkeypatch):
    """For all ragged batch sizes together: one graph each for training, for no gradient, and for a single item.

    The compiler's own backend is left out, so that the numbers are those without it, to the bit.
    """
    compiled = []
    plain_compile = torch.compile

    def backend(module, inputs):
        compiled.append(module)
        return module.forward

    monkeypatch.setattr(torch, "compile", lambda *args, **options: plain_compile(*args, **options, backend=backend))
    torch._dynamo.reset()
    rollout = {"max_step_offset": 4, "probability": 1.0, "step_size": 60.0}
    run = train(graph(rollout=rollout), steps=8, compile=True)
    torch._dynamo.reset()
    assert same_bits(run.weights, train(graph(rollout=rollout), steps=8).weights)
    assert 2 <= len(compiled) <= 4  # each batch size of its own would make five: 4 with gradient, and 1 to 4 without


def test_only_the_newest_checkpoints_are_kept(train, graph):
    """A long run does not fill the disk; 0 keeps all."""
    run = train(graph(), steps=6, checkpoint_every=1, keep_checkpoints=2)
    kept = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert kept == ["step_000004", "step_000005"]
    run = train(graph(), steps=4, checkpoint_every=1)
    assert len(list((run.folder / "checkpoints").iterdir())) == 3


def test_a_diverged_run_saves_no_model(graph, train, host, only_run):
    """Weights that are no numbers are worth nothing: no model, no checkpoint, also where a stop comes first."""
    with pytest.raises(StepError, match=r"step 2: the loss is not a finite number"):
        train(with_loss(graph(), diverging_at(2)), steps=100, checkpoint_every=2, on_bad_step="stop")
    run = only_run()
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step_000002"]
    assert not (run.folder / "model").exists()
    assert (run.folder / "loss.png").is_file()


def test_a_stop_after_the_loss_diverged_saves_no_model(graph, train, host, only_run):
    """The losses are read now and then: those that nobody had read yet count too."""
    host.stop_after = 4
    with pytest.raises(Interrupted):
        train(with_loss(graph(), diverging_at(2)), steps=100, on_bad_step="stop")
    run = only_run()
    assert run.facts["status"] == "interrupted"
    assert [row["loss"] is None for row in read_metrics(run.folder)] == [False, False, True, True]
    assert not (run.folder / "model").exists()


@pytest.mark.parametrize("steps", [3, 1])
def test_a_save_that_fails_leaves_nothing_half_written(graph, train, only_run, monkeypatch, steps):
    """A full disk at the end: the run is marked as failed, and there is no broken model folder."""

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        train(graph(), steps=steps)
    monkeypatch.setattr("safetensors.torch.save_file", save_file)
    run = only_run()
    assert (run.facts["status"], run.facts["message"]) == ("failed", "disk full")
    assert not (run.folder / "model").exists()
    assert not [path for path in run.folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("broken", ["update", "add_metrics"])
def test_a_fact_that_cannot_be_kept_costs_nothing_else(graph, train, monkeypatch, caplog, broken):
    """A full disk: what was learnt is there, the state to go on from too, and the log says what is missing, once."""

    def fail(self, *given, **facts):
        if broken != "update" or "shares_of_time" in facts:
            raise OSError("disk full")
        return original(self, *given, **facts)

    original = getattr(RunFolder, broken)
    monkeypatch.setattr(RunFolder, broken, fail)
    run = train(graph(), steps=12)
    assert run.facts["status"] == "finished"
    assert len(run.weights)
    assert len([record for record in caplog.records if "disk full" in record.message]) == 1


def bad_at(*updates):
    """A loss that is no number for the second item of these steps."""

    def change(step, value):
        spoilt = torch.arange(len(value)) == 1
        return torch.where(spoilt, value * float("nan"), value) if step.update in updates else value

    return change


def test_a_bad_step_is_left_out(graph, train, caplog):
    """One NaN pixel: nothing is learnt from that step, its picture and level are named, and the run goes on."""
    run = train(with_loss(graph(), bad_at(4)), steps=12, seed=3)
    assert (run.facts["status"], run.facts["skipped"]) == ("finished", [4])
    assert all(value.isfinite().all() for value in run.weights.values())
    rows = rows_of(run.folder)
    assert [row["step"] for row in rows if row.get("skipped")] == [4]
    assert [row["step"] for row in rows if row["loss"] is None] == [4]
    (said,) = [record.message for record in caplog.records if "left out" in record.message]
    item = plan_batch(graph().dataset.about, 4, 4, 3, "RolloutDigitsDataset")[1]
    assert re.search(rf"step 4: item {item} at timestep \d+\.\d$", said)
    assert "1 steps were left out; the log and run.json say which" in run.ui["text"]


def test_good_steps_are_as_they_were(graph, train, same_bits):
    """Looking for bad steps changes no bit of the others, with clipping and without."""
    for clip_norm in (1.0, 0.0):
        skipping, stopping = (train(graph(), clip_norm=clip_norm, on_bad_step=what) for what in ("skip", "stop"))
        assert same_bits(skipping.weights, stopping.weights)
        assert "skipped" not in rows_of(skipping.folder)[0]


def test_many_bad_steps_go_back_once_and_then_fail(graph, train, only_run, caplog):
    """To the last good state, in case that it was an accident; with the report, for it was none."""
    bad = with_loss(graph(), bad_at(*range(5, 1000)))
    with pytest.raises(
        StepError, match=r"step 5: the loss is not a finite number; 11 steps in a row were left out"
    ) as caught:
        train(bad, steps=100, checkpoint_every=4)
    assert "item " in str(caught.value)
    run = only_run()
    assert run.facts["status"] == "failed"
    assert find_state(run.folder).step == 4
    assert len([record for record in caplog.records if "went back once" in record.message]) == 1
    assert not (run.folder / "model").exists()


def test_an_accident_that_lasted_is_got_over(graph, train, same_bits):
    """Something outside the training spoilt many steps: it goes back, and ends with the bits of an undisturbed run."""
    whole = train(graph(), steps=30, seed=5)
    calls = []

    def disturbed(step, value):
        calls.append(step.update)
        return value * float("nan") if 16 > len(calls) > 5 else value

    run = train(with_loss(graph(), disturbed), steps=30, seed=5, checkpoint_every=5)
    assert same_bits(run.weights, whole.weights)
    assert [row["step"] for row in rows_of(run.folder)] == list(range(30))


def test_a_run_that_learnt_nothing_fails(graph, train):
    """All of its few steps were bad."""
    with pytest.raises(StepError, match=r"step 0: the loss was never a finite number; step 0: item"):
        train(with_loss(graph(), bad_at(0, 1, 2)), steps=3)


# Out of memory


def hungry(monkeypatch, most):
    """Make the training forward fail for more items than ``most``."""
    from comfyui_rollout.nodes.rollouts import loss

    real = loss.predict

    def predict(model, batch):
        if len(batch.x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(model, batch)

    monkeypatch.setattr(loss, "predict", predict)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_batch_that_is_too_large_is_halved(graph, wire, train, monkeypatch, caplog, accumulation):
    """As often as needed; items, noise and rollouts are those of the whole batch, and so is what is learnt."""
    options = {"steps": 4, "accumulation": accumulation, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    whole = train(graph(rollout=EVERY), **options)
    hungry(monkeypatch, most=1)
    run = train(graph(rollout=EVERY), **options, on_out_of_memory="halve")
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)
    for row, other in zip(rows_of(run.folder), rows_of(whole.folder), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    ours = [record.message for record in caplog.records if record.name.startswith("comfyui_rollout")]
    assert ours == [
        f"step 0: out of memory; from now on the loss of a batch is computed in {parts} parts" for parts in (2, 4)
    ]


CHAINS = {**EVERY, "rollout": "persistent", "probability": 0.75}
TRAJECTORY = {"target": "trajectory", "reference_sampler": "euler"}


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("rollout", "loss_inputs"),
    [
        (CHAINS, {}),
        (CHAINS, TRAJECTORY),
        ({**CHAINS, "sampler": "dpm"}, {**TRAJECTORY, "target_sampler": "rollout"}),
        ({**EVERY, "sampler": "unipc"}, {**TRAJECTORY, "target_sampler": "rollout"}),
    ],
    ids=["persistent", "fine paths", "own sampler", "own sampler, fresh"],
)
def test_halving_goes_with_whatever_goes_on_from_step_to_step(
    graph, wire, train, monkeypatch, rollout, loss_inputs, late
):
    """Persistent rollouts hear of all parts, and solvers have their memory of each; wherever the memory ran out."""
    options = {"steps": 6, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    wired = graph(rollout=rollout, loss_inputs=loss_inputs)
    whole = train(wired, **options)
    if late:
        hungry_behind(monkeypatch, most=1)
    else:
        hungry(monkeypatch, most=1)
    run = train(wired, **options, on_out_of_memory="halve")
    for row, other in zip(rows_of(run.folder), rows_of(whole.folder), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


def test_halving_goes_with_batches_of_several_sizes(graph, wire, train, monkeypatch):
    """With copies beside them: a later batch has fewer items than an earlier one had parts."""
    options = {"steps": 8, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    wired = graph(rollout={**EVERY, "probability": 0.2, "keep_base": True})
    whole = train(wired, **options)
    hungry(monkeypatch, most=1)
    run = train(wired, **options, on_out_of_memory="halve")
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


def hungry_rollouts(monkeypatch, fails):
    """Make forwards without gradient fail where ``fails(number)``, counted from 1, says so."""
    from comfyui_rollout.models.families import UNet

    real, numbers = UNet.__call__, itertools.count(1)

    def call(self, *told):
        if not torch.is_grad_enabled() and fails(next(numbers)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, *told)

    monkeypatch.setattr(UNet, "__call__", call)


def test_chains_go_on_where_the_memory_ran_out_in_their_own_node(graph, wire, train, monkeypatch):
    """The step is made once more: chains that were seated for it wait for its loss, and are no older by it."""
    options = {"steps": 6, "optimizer": wire(nodes.Optimizer, optimizer="sgd"), "on_out_of_memory": "halve"}
    wired = graph(rollout=CHAINS, loss=nodes.ReflexFlowLoss)  # it wants a forward of the chains in the Rollout node
    whole = train(wired, **options)
    hungry_rollouts(monkeypatch, lambda number: number == 2)
    run = train(wired, **options)
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rollout", [EVERY, {**CHAINS, "sampler": "heun"}], ids=["fresh", "persistent"])
def test_rollouts_that_never_fit_say_what_to_change(graph, train, monkeypatch, one_line, rollout):
    """A smaller part of the loss does not help them: the same advice, not the allocator's own words."""
    hungry_rollouts(monkeypatch, lambda number: True)
    with pytest.raises(StepError, match=r"step [01]: the device's memory is too small for this step") as caught:
        train(graph(rollout=rollout, loss=nodes.ReflexFlowLoss), on_out_of_memory="halve")
    assert "batch_size 4 -> 2 in Digits Dataset" in one_line(caught)


def test_halving_changes_no_draw_of_the_loss(graph, wire, train, monkeypatch):
    """DEFAR draws how far each item drifts: in parts, every item has the draw that it has in the whole batch."""
    from comfyui_rollout.diffusion import reflexflow

    options = {"steps": 3, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    wired = graph(loss=nodes.ReflexFlowLoss, loss_inputs={"objective": "defar"})
    whole = train(wired, **options)
    real = reflexflow.defar

    def defar(model, batch, **settings):
        if len(batch.x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(model, batch, **settings)

    monkeypatch.setattr(reflexflow, "defar", defar)
    run = train(wired, **options, on_out_of_memory="halve")
    for row, other in zip(rows_of(run.folder), rows_of(whole.folder), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


def hungry_behind(monkeypatch, most):
    """As :func:`hungry`, when the forward is over and who listens has heard its answer."""
    from comfyui_rollout.nodes.rollouts import loss

    real = loss.predict

    def predict(model, batch):
        output = real(model, batch)
        if len(batch.x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return output

    monkeypatch.setattr(loss, "predict", predict)


@pytest.mark.parametrize("choice", ["stop", "halve"])
def test_out_of_memory_says_what_to_change(graph, train, monkeypatch, choice, one_line):
    """What was being computed, which widgets, and what each saves; also where even one item is too much."""
    hungry(monkeypatch, most=0)
    words = r"node RolloutDiffusionLoss \(Diffusion Loss\), step 0: the device's memory is too small for this step"
    with pytest.raises(StepError, match=words) as caught:
        train(graph(), on_out_of_memory=choice)
    for widget in ("batch_size 4 -> 2 in Digits Dataset", "accumulation 1 -> 2", "precision bf16", "size"):
        assert widget in one_line(caught)


def test_minutes_are_a_limit(graph, train, monkeypatch):
    """The run ends as finished, with its model, and can go on."""
    now = iter(range(0, 100_000, 20))
    monkeypatch.setattr("comfyui_rollout.runs.looks.time.monotonic", lambda: next(now))
    run = train(graph(), steps=1000, max_minutes=1.0)
    assert run.facts["status"] == "finished"
    assert 0 < run.facts["steps_done"] < 10


def test_a_state_is_kept_by_the_clock(graph, train, only_run, monkeypatch):
    """Whatever checkpoint_every is: a kill -9 costs minutes, not the night. It never takes over 1% of the time."""
    now = iter(range(0, 1_000_000, 300))
    monkeypatch.setattr("comfyui_rollout.runs.checkpoint.time.monotonic", lambda: next(now))
    monkeypatch.setattr("comfyui_rollout.runs.checkpoint.SHARE", 1)
    seen = []

    def look(step, value):
        seen.append([path.name for path in (only_run().folder / "state").glob("step_*")])
        return value

    train(with_loss(graph(), look), steps=30)
    assert seen[0] == []
    assert seen[-1]


def test_a_curve_that_cannot_be_drawn_fails_no_run(graph, train, monkeypatch, caplog):
    """matplotlib may be broken or absent: a picture less, said once, and the run has finished."""

    def fail(self):
        raise ImportError("no module named matplotlib")

    monkeypatch.setattr(RunFolder, "plot", fail)
    run = train(graph(), steps=3)
    assert run.facts["status"] == "finished"
    assert [record.message for record in caplog.records if record.name.startswith("comfyui_rollout")] == [
        "the curve loss.png could not be drawn: no module named matplotlib"
    ]


@pytest.mark.parametrize(("storage", "precision"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_two_sixteen_bit_formats_are_refused_before_loading(storage, precision):
    """Autocast cannot bring them together, and says so after gigabytes were loaded."""
    source = SimpleNamespace(storage=storage)
    info = SimpleNamespace(pretrained=SimpleNamespace(source=source))
    with pytest.raises(ValueError, match=f"precision is {precision}, and storage in Load Pretrained is {storage}"):
        check_precision(info, precision)
    for fine in (storage, "fp32"):
        check_precision(info, fine)


def test_an_unwritable_output_folder_is_said_before_anything_is_loaded(graph, train, output, monkeypatch):
    """A file in its place: one line, and no model was made for nothing."""
    output.write_text("a file")
    made = []
    monkeypatch.setattr("comfyui_rollout.models.families.UNet.create", lambda **settings: made.append(settings))
    with pytest.raises(ValueError, match=r"^cannot write in '.*rollout' \(.*\): choose another output folder$"):
        train(graph())
    assert made == []


def test_another_model_than_the_loss_is_refused(graph, train, output):
    """Two New Model nodes by accident: nothing would be learnt."""
    wired = SimpleNamespace(loss=graph().loss, model=graph().model)
    with pytest.raises(ValueError, match="wire the same model into the loss"):
        train(wired)
    assert not output.exists()


def test_a_model_of_another_size_is_refused(graph, train, wire):
    """In numbers that a person can compare, naming the data set."""
    wired = graph()
    larger = wire(nodes.DigitsDataset, batch_size=2, size=16)
    batch = wire(nodes.NoisyBatch, dataset=larger, schedule=wired.schedule)
    loss = wire(nodes.DiffusionLoss, batch=batch, model=wired.model)
    with pytest.raises(
        ValueError, match=r"made for 1 x 8 x 8 images, and node .* \(Digits Dataset\) gives 1 x 16 x 16"
    ):
        train(SimpleNamespace(loss=loss, model=wired.model))


@pytest.fixture
def picture_folder(tmp_path):
    """``picture_folder("cat", "dog")``: a folder with an image for each class; without names, of one image."""

    def paint(*classes):
        place = tmp_path / "_".join(("images", *classes))
        for name in classes or (".",):
            (place / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(place / name / "a.png")
        return str(place)

    return paint


@pytest.mark.parametrize("classes", [(), ("ant", "bee", "cat")])
def test_a_data_set_with_other_classes_is_refused(graph, wire, train, picture_folder, output, classes):
    """A label that the model has no number for, or no labels at all, is said before anything is loaded."""
    two, other = (
        wire(nodes.ImageFolderDataset, folder=picture_folder(*names), size=8, color="L", batch_size=2)
        for names in (("ant", "bee"), classes)
    )
    model = wire(nodes.NewModel, dataset=two, width=8, depth=1)
    batch = wire(nodes.NoisyBatch, dataset=other, schedule=FlowMatching())
    wired = SimpleNamespace(loss=wire(nodes.DiffusionLoss, batch=batch, model=model), model=model)
    with pytest.raises(ValueError, match=rf"knows 2 classes, and node .* \(Image Folder Dataset\) has {len(classes)}$"):
        train(wired)
    assert not output.exists()


def test_a_data_set_with_fewer_classes_will_do(graph, wire, train, picture_folder):
    """A model of ten digits may be trained further on two kinds of pictures; one without classes on anything."""
    folder = wire(nodes.ImageFolderDataset, folder=picture_folder("ant", "bee"), size=8, color="L", batch_size=2)
    batch = wire(nodes.NoisyBatch, dataset=folder, schedule=FlowMatching())
    for told in (True, False):
        model = graph(model={"class_conditional": told}).model
        loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
        assert train(SimpleNamespace(loss=loss, model=model), steps=1).facts["status"] == "finished"


@pytest.mark.parametrize("name", ["", "  ", "a/b", "../a"])
def test_a_run_name_with_slashes_is_refused(name):
    """Runs stay below the output folder."""
    assert "plain folder name" in nodes.OptimizerStep.VALIDATE_INPUTS(run_name=name)
    assert nodes.OptimizerStep.VALIDATE_INPUTS(run_name="a b") is True
    assert nodes.OptimizerStep.VALIDATE_INPUTS(run_name=None) is True


def test_queueing_again_trains_again():
    """A run is never taken from the cache: NaN is equal to nothing."""
    changed = nodes.OptimizerStep.IS_CHANGED(steps=1)
    assert changed != changed


def test_the_widgets_make_the_settings(wire):
    """Every setting of Optimizer arrives."""
    settings = {"learning_rate": 0.5, "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.9, "lr_schedule": "cosine"}
    settings |= {"warmup_steps": 7, "num_cycles": 5}
    assert wire(nodes.Optimizer, optimizer="muon", **settings) == OptimizerSettings("muon", **settings)
    assert wire(nodes.Optimizer) == OptimizerSettings()


def test_an_optimizer_that_would_not_learn_is_refused(wire):
    """In the editor, and when it is wired in: its line says what to do."""
    assert nodes.Optimizer.VALIDATE_INPUTS(optimizer="adamw", learning_rate=1e-4) is True
    assert nodes.Optimizer.VALIDATE_INPUTS(optimizer=None, learning_rate=None) is True
    assert nodes.Optimizer.VALIDATE_INPUTS(optimizer="soap", learning_rate=1e-4).startswith("unknown optimizer 'soap'")
    told = nodes.Optimizer.VALIDATE_INPUTS(optimizer="prodigy", learning_rate=1e-4)
    with pytest.raises(ValueError, match="prodigy") as caught:
        wire(nodes.Optimizer, optimizer="prodigy")
    assert told == str(caught.value)


@pytest.mark.parametrize("name", nodes.Optimizer.INPUT_TYPES()["required"]["optimizer"][0])
@pytest.mark.parametrize("family", ["unet", "dit"])
def test_every_optimizer_trains_every_family(graph, wire, train, name, family):
    """All pairs work, and the weights stay finite."""
    optimizer = wire(nodes.Optimizer, optimizer=name, learning_rate=1.0 if name == "prodigy" else 1e-3)
    run = train(graph(model={"family": family, "width": 32}), optimizer=optimizer, steps=2)
    assert all(value.isfinite().all() for value in run.weights.values())


@pytest.mark.parametrize("schedule", nodes.Optimizer.INPUT_TYPES()["required"]["lr_schedule"][0])
def test_every_learning_rate_schedule_runs(graph, wire, train, schedule):
    """Each name of the widget is known to diffusers."""
    optimizer = wire(nodes.Optimizer, lr_schedule=schedule, warmup_steps=1)
    assert len(rows_of(train(graph(), optimizer=optimizer, steps=3).folder)) == 3

"""Optimizer Step: whole runs, their bits, their folders, and their ends."""

import json

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.models import schedule_file
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.runs.run_folder import RunFolder
from comfyui_rollout.training.stream import Run, StepError
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import with_loss

WEIGHTS = "diffusion_pytorch_model.safetensors"
EVERY = {"max_step_offset": 2, "probability": 1.0, "step_size": 50.0}
ROLLOUT_FILES = (".png", "_frames.png", "_frames.json")


# Bits


def test_the_same_seed_gives_the_same_weights(graph, train, same_bits):
    """The whole canonical graph, twice, to the bit; another seed gives others."""
    options = {"rollout": EVERY, "loss": nodes.ReflexFlowLoss}
    first, second, other = (train(graph(**options), seed=seed) for seed in (1, 1, 2))
    assert same_bits(first.weights, second.weights)
    assert not same_bits(first.weights, other.weights)
    drop = ("seconds", "steps_per_second", "machine")
    first, second = ([{k: v for k, v in row.items() if k not in drop} for row in read_metrics(run.folder)]
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
    losses = [row["loss"] for row in read_metrics(train(graph(), steps=60).folder)]
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
    rows = read_metrics(finished.folder)
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
    assert len(read_metrics(run.folder)) == 3
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


def test_an_unwritable_output_folder_is_said_before_anything_is_loaded(graph, train, output, monkeypatch):
    """A file in its place: one line, and no model was made for nothing."""
    output.write_text("a file")
    made = []
    monkeypatch.setattr("comfyui_rollout.models.families.UNet.create", lambda **settings: made.append(settings))
    with pytest.raises(ValueError, match=r"^cannot write in '.*rollout' \(.*\): choose another output folder$"):
        train(graph())
    assert made == []


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

"""A run that was stopped goes on as if it had not been: to the bit, in its own folder, or with one clear line."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.data import Loader
from comfyui_rollout.files.lock import held
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.models.families import UNet
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.training.state import find_state, states_in
from comfyui_rollout.training.stream import StepError
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from toys import with_loss

EVERY = {"max_step_offset": 2, "probability": 0.5, "step_size": 50.0}
KINDS = ("adamw", "muon", "adamw_8bit", "adamw_schedule_free")
"""Optimizers that keep plain tensors, are two in one, keep squeezed ones, and train what they do not save. What each
of all of them remembers goes on to the bit in tests/training/state/test_memory.py."""
OPTIMIZERS = [name for name in nodes.Optimizer.INPUT_TYPES()["required"]["optimizer"][0] if name in KINDS]
ALL = {"steps": 12, "ema_decay": 0.9, "accumulation": 2, "seed": 3, "preview_every": 4}
TIMES = ("seconds", "steps_per_second", "machine")


@pytest.fixture
def dropout(monkeypatch):
    """The network of the graph drops a fifth of its features."""
    create = UNet.create

    def with_dropout(**settings):
        model = create(**settings)
        for module in model.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.2
        return model

    monkeypatch.setattr(UNet, "create", staticmethod(with_dropout))


@pytest.fixture
def stop(train, host):
    """``stop(graph, after, **options)``: train and stop after so many steps; afterwards nothing is stopped."""

    def run(graph, after, **options):
        host.stop_after, host.told = after, []
        with pytest.raises(Interrupted):
            train(graph, **options)
        host.stop_after, host.told = None, []

    return run


def numbers(folder):
    """Metrics without what a clock measured."""
    rows = read_metrics(folder)
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def state_of(folder):
    return load_file(find_state(folder).path)


def facts_of(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_equals_one_that_never_stopped(name, graph, wire, train, stop, same_bits, dropout, output):
    """Weights, averages, what the optimizer remembers, metrics, recorded rollouts: to the bit, with everything on."""
    rate, averages = 1.0 if name == "prodigy" else 1e-3, name != "adamw_schedule_free"
    options = ALL if averages else {**ALL, "ema_decay": 0.0}
    optimizer = wire(nodes.Optimizer, optimizer=name, learning_rate=rate, lr_schedule="cosine", warmup_steps=3)
    wired = graph(rollout=EVERY, loss=nodes.ReflexFlowLoss)
    whole = train(wired, optimizer=optimizer, **options)
    stop(wired, 5, optimizer=optimizer, **options, run_name="other")
    resumed = train(wired, optimizer=optimizer, **options, resume="other_00001")
    assert resumed.folder == output / "rollout" / "other_00001"
    assert same_bits(resumed.weights, whole.weights)
    assert same_bits(state_of(resumed.folder), state_of(whole.folder))
    kinds = {name.partition(".")[0] for name in state_of(whole.folder)}
    assert kinds == {"weights", "optimizer"} | ({"averaged"} if averages else set())
    assert numbers(resumed.folder) == numbers(whole.folder)
    for film in sorted((whole.folder / "rollouts").iterdir()):
        assert (resumed.folder / "rollouts" / film.name).read_bytes() == film.read_bytes(), film.name


@pytest.fixture
def adapted(build, wire, tiny_pipeline, tmp_path):
    """A LoRA on pictures that come in two resolutions, mirrored and with dropped captions; five places an epoch."""
    for name, size in {"a": (128, 128), "b": (160, 120), "c": (64, 64)}.items():
        Image.new("RGB", size, (len(name) * 40, size[0], size[1])).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"picture {name}")
    model, schedule, pipeline = build(nodes.LoadPretrained, path=str(tiny_pipeline("sd")), storage="fp32")["result"]
    resolutions = {"resolutions": "64, 128", "buckets": True, "upscale": False, "flip": True}
    images = wire(nodes.ImageFolderDataset, folder=str(tmp_path), batch_size=1, **resolutions)
    data = wire(
        nodes.EncodeDataset, dataset=images, pipeline=pipeline, caption_dropout=0.3, cache_folder=str(tmp_path / "c")
    )
    model = wire(nodes.AddLora, model=model, rank=2)
    batch = wire(nodes.NoisyBatch, dataset=data, schedule=schedule)
    return SimpleNamespace(model=model, data=data, loss=wire(nodes.DiffusionLoss, batch=batch, model=model))


@pytest.mark.parametrize("after", [3, 5, 7])
def test_a_run_of_several_resolutions_goes_on_in_the_middle_of_them(
    adapted, build, wire, stop, same_bits, output, after
):
    """Before, at and behind the end of an epoch: sizes, order, views and captions are those that would have come."""
    dataset = adapted.data.inputs["dataset"]
    sizes = [tuple(Loader(dataset, 1, 0, "data").batch(index).latents.shape[-2:]) for index in range(5)]
    assert len({*sizes}) == len(dataset.info.groups) == 3  # c, which is not enlarged, comes once
    rate = wire(nodes.Optimizer, learning_rate=0.01)

    def run(**options):
        inputs = {"loss": adapted.loss, "model": adapted.model, "optimizer": rate, "steps": 9, "seed": 4, **options}
        return build(nodes.OptimizerStep, **inputs)["result"][1]

    whole = run()
    stop(adapted, after, optimizer=rate, steps=9, seed=4, run_name="other")
    resumed = run(resume="other_00001")
    assert same_bits(state_of(resumed), state_of(whole))
    assert numbers(resumed) == numbers(whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_finished_run_can_be_trained_further(precision, graph, train, same_bits):
    """``steps`` is the total: raising it goes on where the run ended."""
    options = {"precision": precision}
    whole = train(graph(), steps=6, **options)
    first = train(graph(), steps=2, **options)
    longer = train(graph(), steps=6, **options, resume=first.folder.name)
    assert same_bits(longer.weights, whole.weights)
    assert (longer.facts["steps"], longer.facts["steps_done"]) == (6, 6)


def test_a_run_is_resumed_in_inference_mode(graph, train, same_bits):
    """ComfyUI builds and runs all nodes in it; what is read from the state must be trained all the same."""
    whole = train(graph(), steps=5, ema_decay=0.9)
    first = train(graph(), steps=3, ema_decay=0.9)
    with torch.inference_mode():
        resumed = train(graph(), steps=5, ema_decay=0.9, resume=first.folder.name)
    assert same_bits(resumed.weights, whole.weights)


def test_the_folder_tells_of_the_resume(graph, train, stop, output):
    """run.json: finished, when it went on and from where, the time of both parts, and no word of the stop."""
    stop(graph(), 3, steps=5)
    before = facts_of(output / "rollout" / "run_00001")
    assert before["message"] == "stopped by the user"
    run = train(graph(), steps=5, resume="run_00001")
    assert [path.name for path in (output / "rollout").iterdir()] == ["run_00001"]
    assert (run.facts["status"], run.facts["started"]) == ("finished", before["started"])
    assert [entry["step"] for entry in run.facts["resumed"]] == [3]
    assert run.facts["seconds"] > before["seconds"]
    assert "message" not in run.facts
    again = train(graph(), steps=6, resume="run_00001")
    assert [entry["step"] for entry in again.facts["resumed"]] == [3, 5]


def test_another_batch_is_told_in_one_line(graph, train, host):
    """It goes on, with other batches than it would have had; with the same ones there is nothing to tell."""
    train(graph(), steps=2, accumulation=2)
    again = train(graph(), steps=3, accumulation=2, resume="run_00001")
    assert not any("an update had" in line for line in again.facts["said"])
    other = train(graph(), steps=4, accumulation=1, resume="run_00001")
    (line,) = (line for line in other.facts["said"] if "an update had" in line)
    assert line == (
        "resume: an update had 8 items (batch_size 4 x processes 1 x accumulation 2) and now has 4 (batch_size 4 x "
        "processes 1 x accumulation 1), so the run goes on with other batches, not exactly where it was; batch_size 4 "
        "and accumulation 2 keep it as it was"
    )


def test_the_user_is_told_what_was_restored(graph, wire, train, stop, host):
    """At once, not at the end; and the curve that is watched begins where the run began."""
    optimizer = wire(nodes.Optimizer, learning_rate=0.01, lr_schedule="linear", warmup_steps=1)
    stop(graph(), 3, steps=5, optimizer=optimizer, ema_decay=0.9, seed=7)
    run = train(graph(), steps=5, optimizer=optimizer, ema_decay=0.9, seed=7, resume="run_00001")
    kind, node_id, text = host.told[0]
    assert (kind, node_id) == ("resumed", "RolloutOptimizerStep")
    assert text == (
        "run_00001 goes on after step 3 of 5: weights, adamw, averaged weights, learning rate 0.005, seed 7 restored"
    )
    assert run.ui["text"][0] == text
    told = [row["step"] for event in host.told if event[0] == "metrics" for row in event[2]]
    assert told == [0, 1, 2, 3, 4]
    assert [event[2:] for event in host.told if event[:2] == ("progress", "RolloutOptimizerStep")] == [(4, 5), (5, 5)]


@pytest.mark.parametrize(("curve", "jumps"), [("cosine", True), ("constant", False)])
def test_a_curve_that_is_drawn_anew_is_told(graph, wire, train, stop, host, curve, jumps):
    """More steps stretch the learning rate's curve, so that it is suddenly higher: nobody shall wonder why."""
    optimizer = wire(nodes.Optimizer, lr_schedule=curve)
    train(graph(), steps=3, optimizer=optimizer)
    text = train(graph(), steps=6, optimizer=optimizer, resume="run_00001").ui["text"][0]
    assert ("cosine learning rate was drawn over 3 steps and is now over 6: it jumps" in text) is jumps


def test_another_seed_does_not_change_a_run_in_the_middle(graph, train, stop, same_bits):
    """The editor may have drawn a new seed: the run's own one counts, or it would not be the same run."""
    whole = train(graph(), steps=4, seed=1)
    stop(graph(), 2, steps=4, seed=1, run_name="other")
    resumed = train(graph(), steps=4, seed=2, resume="other_00001")
    assert same_bits(resumed.weights, whole.weights)
    assert resumed.facts["seed"] == 1


def test_another_learning_rate_takes_effect(graph, wire, train, stop):
    """What the workflow says now counts: a rate that was too high can be lowered."""
    stop(graph(), 2, steps=4)
    optimizer = wire(nodes.Optimizer, learning_rate=0.002)
    resumed = train(graph(), steps=4, optimizer=optimizer, resume="run_00001")
    assert [row["learning_rate"] for row in read_metrics(resumed.folder)] == [0.01, 0.01, 0.002, 0.002]


def test_after_a_crash_the_run_goes_on_from_its_last_checkpoint(graph, train, same_bits, output):
    """What was written after it is dropped: lines, a line that was cut short, and pictures."""
    whole = train(graph(rollout=EVERY), steps=8, preview_every=2)
    folder = output / "rollout" / "crashed_00001"

    class PowerCut(BaseException):
        pass

    def cut(step, value):
        if step.update == 6:
            shutil.copytree(output / "rollout" / "run_00002", folder)  # as the power cut leaves it
            raise PowerCut
        return value

    with pytest.raises(PowerCut):
        train(with_loss(graph(rollout=EVERY), cut), steps=8, preview_every=2, checkpoint_every=4)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    (folder / "rollouts" / "Rollout_step_000007.png").write_bytes(b"")
    assert facts_of(folder)["status"] == "running"
    resumed = train(graph(rollout=EVERY), steps=8, preview_every=2, resume="crashed_00001")
    assert same_bits(resumed.weights, whole.weights)
    assert numbers(folder) == numbers(whole.folder)
    assert not (folder / "rollouts" / "Rollout_step_000007.png").exists()


def test_a_full_path_leads_to_a_run_too(graph, train, stop, output, tmp_path, same_bits):
    """Within the output folder, and anywhere else: then it is resumed there."""
    whole = train(graph(rollout=EVERY), steps=4, preview_every=1)
    stop(graph(rollout=EVERY), 2, steps=4, preview_every=1)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(output / "rollout" / "run_00002", elsewhere)
    for folder in (output / "rollout" / "run_00002", elsewhere):
        resumed = train(graph(rollout=EVERY), steps=4, preview_every=1, resume=str(folder))
        assert resumed.folder == folder
        assert same_bits(resumed.weights, whole.weights)


def test_the_kept_workflow_begins_anew(graph, train, stop):
    """Loaded from the folder or from the weights, the graph trains a run of its own; it does not go on with this."""
    stop(graph(), 2, steps=4)
    step = {"id": 1, "type": "RolloutOptimizerStep", "widgets_values": [4, 0, "run_00001", "run_00001", 0]}
    step["widgets_values_named"] = {"run_name": "run_00001", "resume": "run_00001"}
    inner = {"id": 2, "type": "RolloutOptimizerStep", "widgets_values": {"steps": 4, "resume": "run_00001"}}
    workflow = {"nodes": [step, {"id": 3, "type": "Note"}], "definitions": {"subgraphs": [{"nodes": [inner]}]}}
    prompt = {"RolloutOptimizerStep": {"class_type": "RolloutOptimizerStep", "inputs": {"resume": "run_00001"}}}
    run = train(graph(), steps=4, resume="run_00001", prompt=prompt, extra_pnginfo={"workflow": workflow})
    kept = json.loads((run.folder / "workflow.json").read_text())
    assert kept["nodes"][0]["widgets_values"] == [4, 0, "run_00001", "", 0]
    assert kept["nodes"][0]["widgets_values_named"] == {"run_name": "run_00001", "resume": ""}
    assert kept["definitions"]["subgraphs"][0]["nodes"][0]["widgets_values"] == {"steps": 4, "resume": ""}
    assert json.loads((run.folder / "prompt.json").read_text())["RolloutOptimizerStep"]["inputs"] == {"resume": ""}
    assert step["widgets_values"][-2] == "run_00001"  # the caller's own is left alone


# What is not kept


def test_a_diverged_state_is_not_kept(graph, train, only_run):
    """The state of the last good checkpoint stays, and a lower learning rate can go on from there."""

    def spoil(step, value):
        return value * float("nan") if step.update >= 4 else value

    with pytest.raises(StepError, match="not a finite number"):
        train(with_loss(graph(), spoil), steps=20, checkpoint_every=2, on_bad_step="stop")
    assert find_state(only_run().folder).step == 4
    assert train(graph(), steps=6, resume="run_00001").facts["status"] == "finished"


def test_weights_that_are_no_numbers_are_not_kept(graph, train, stop, host, output, monkeypatch):
    """The last update may have ruined them before any loss could tell."""

    def ruin(parameters, *_):
        for parameter in parameters:
            parameter.data.fill_(float("inf"))
        return torch.zeros(())

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", ruin)
    stop(graph(), 1)
    assert not (output / "rollout" / "run_00001" / "state").exists()


def test_half_an_update_is_not_kept(graph, train, only_run, monkeypatch):
    """Where the optimizer itself was broken off, weights and memory do not belong together."""

    def fail(self, *_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(graph(), steps=3)
    assert not (only_run().folder / "state").exists()


# Refusals


@pytest.fixture
def begun(graph, stop, output):
    """A run that was stopped after 3 of 5 steps: its folder."""
    stop(graph(), 3, steps=5)
    return output / "rollout" / "run_00001"


def everything_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 3}, "'run_00001' has done 3 steps: set steps to more, to train it further"),
        ({"optimizer": "sgd"}, "was trained with adamw, and now the optimizer is sgd: choose adamw again, or clear"),
        ({"resume": "run_00009"}, "there is no run 'run_00009'"),
        (
            {"model": {"width": 16}},
            "trained another model: .* weights differ, e.g. .* is \\(10, 32\\) there and \\(10, 64\\) here",
        ),
        ({"model": {"depth": 2}}, "trained another model: .* weights differ, e.g. .* missing there"),
    ],
    ids=["steps", "optimizer", "name", "shape", "layers"],
)
def test_what_cannot_go_on_is_refused_and_nothing_is_touched(begun, graph, wire, train, change, words, one_line):
    """One line with the remedy; the folder stays as it was, to the byte, and no new one is made."""
    before, options = everything_in(begun), {"steps": 5, "resume": "run_00001", **change}
    optimizer = wire(nodes.Optimizer, optimizer=options.pop("optimizer", "adamw"), learning_rate=0.01)
    wired = graph(model=options.pop("model", None))
    with pytest.raises(ValueError, match=words) as caught:
        train(wired, optimizer=optimizer, **options)
    assert one_line(caught).startswith("resume: ")
    assert everything_in(begun) == before
    assert [path.name for path in begun.parent.iterdir()] == ["run_00001"]


@pytest.mark.parametrize("damage", ["gone", "no tensors", "cut short", "one bit"])
def test_a_state_that_cannot_be_used_is_refused(begun, graph, train, damage, one_line):
    """Also one that a full disk, a copy or an old disk has damaged; the folder stays as it was."""
    path = find_state(begun).path
    if damage == "gone":
        shutil.rmtree(path.parent)
    elif damage == "no tensors":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-9] ^= 1
        path.write_bytes(content[:-8] if damage == "cut short" else content)
    before = everything_in(begun)
    with pytest.raises(ValueError, match=r"state") as caught:
        train(graph(), steps=5, resume="run_00001")
    assert "run_00001" in one_line(caught)
    assert everything_in(begun) == before


@pytest.mark.parametrize("text", ["", "{", '{"states": 3}', '{"states": ["../x"]}', "{}"])
def test_a_lost_name_loses_no_state(begun, graph, train, text, same_bits):
    """state.json only names it: without that the newest whole one is found, and the user is told."""
    whole = train(graph(), steps=5)
    (begun / "state" / "state.json").write_text(text)
    run = train(graph(), steps=5, resume="run_00001")
    assert same_bits(run.weights, whole.weights)
    assert "it goes on from step_000003.safetensors, after step 3" in run.ui["text"][0]


def test_a_damaged_state_falls_back_to_the_one_before(graph, train, stop, same_bits, output):
    """Which is whole; it says so, and ends with the bits of a run that never stopped."""
    whole = train(graph(), steps=6)
    stop(graph(), 4, steps=6, checkpoint_every=2, run_name="other")
    folder = output / "rollout" / "other_00001"
    newest = find_state(folder).path
    assert newest.name == "step_000004.safetensors"
    newest.write_bytes(b"")
    run = train(graph(), steps=6, resume="other_00001")
    assert same_bits(run.weights, whole.weights)
    assert run.ui["text"][0].startswith("step_000004.safetensors cannot be used: it is damaged")
    assert run.ui["text"][0].endswith("it goes on from step_000002.safetensors, after step 2")
    assert numbers(run.folder) == numbers(whole.folder)


def test_a_run_goes_back_to_a_state_by_its_step(graph, train, stop, same_bits, output, one_line):
    """RUN@STEP; metrics and pictures of later steps go, and so do later states once there is a new one."""
    whole = train(graph(rollout=EVERY), steps=8, preview_every=1)
    stop(graph(rollout=EVERY), 6, steps=8, preview_every=1, checkpoint_every=2, keep_states=3, run_name="other")
    folder = output / "rollout" / "other_00001"
    assert [path.name for path in states_in(folder)] == [f"step_00000{step}.safetensors" for step in (2, 4, 6)]
    with pytest.raises(ValueError, match="has no state after step 5; it has some after: 2, 4, 6") as caught:
        train(graph(rollout=EVERY), steps=8, resume="other_00001@5")
    assert one_line(caught)
    run = train(graph(rollout=EVERY), steps=8, preview_every=1, keep_states=3, resume="other_00001@2")
    assert same_bits(run.weights, whole.weights)
    assert [entry["step"] for entry in run.facts["resumed"]] == [2]
    assert numbers(run.folder) == numbers(whole.folder)
    assert [path.name for path in states_in(folder)] == ["step_000002.safetensors", "step_000008.safetensors"]


def test_a_state_of_another_run_is_refused(begun, graph, train, stop, output, one_line):
    """Of the same shape, copied by mistake."""
    stop(graph(), 4, steps=5, seed=8)
    other = output / "rollout" / "run_00002" / "state"
    shutil.rmtree(begun / "state")
    shutil.copytree(other, begun / "state")
    with pytest.raises(ValueError, match=r"step_000004.safetensors cannot be used: it is of another run") as caught:
        train(graph(), steps=5, resume="run_00001")
    assert one_line(caught)


def test_what_comes_after_the_training_is_made_up_for(graph, train, output, same_bits, monkeypatch):
    """Killed after the last state and before the model: all steps are done, the rest is done now."""
    whole = train(graph(), steps=4)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("comfyui_rollout.runs.checkpoint.save_model", killed)
        with pytest.raises(KeyboardInterrupt):
            train(graph(), steps=4, run_name="other")
    folder = output / "rollout" / "other_00001"
    assert not (folder / "model").exists()
    run = train(graph(), steps=4, resume="other_00001")
    assert same_bits(run.weights, whole.weights)
    assert run.facts["status"] == "finished"
    assert "has done all 4 steps: only what comes after the training is done now" in run.ui["text"][0]
    assert numbers(run.folder) == numbers(whole.folder)


def test_a_run_that_runs_is_not_resumed(begun, graph, train, one_line):
    """Two programs in one folder would write each line twice."""
    before = everything_in(begun)
    with (
        held(begun),
        pytest.raises(ValueError, match=r"'run_00001' is being trained right now \(process \d+ on") as caught,
    ):
        train(graph(), steps=5, resume="run_00001")
    assert one_line(caught).startswith("resume: ")
    assert everything_in(begun) == before


def test_foreign_files_in_a_run_are_left_alone(begun, graph, train, same_bits):
    """Copies that a person made, and a line that a crash tore in the middle, block nothing."""
    whole = train(graph(), steps=5)
    (begun / "samples").mkdir()
    copy = begun / "samples" / "8_step_000010 copy.png"
    later = begun / "samples" / "8_step_000010.png"
    for path in (copy, later):
        path.write_bytes(b"a picture")
    lines = (begun / "metrics.jsonl").read_text().splitlines(keepends=True)
    (begun / "metrics.jsonl").write_text(lines[0] + '{"step": 1, "lo\n' + "".join(lines[1:]))
    (begun / "state" / "step_99.safetensors").write_bytes(b"mine")
    run = train(graph(), steps=5, resume="run_00001")
    assert same_bits(run.weights, whole.weights)
    assert copy.exists()
    assert not later.exists()
    assert (begun / "state" / "step_99.safetensors").exists()


def test_what_a_killed_program_left_half_written_goes(begun, graph, train):
    """At the next start of the run."""
    for place in (begun, begun / "state", begun / "checkpoints"):
        (place / ".model-abcd1234").mkdir(parents=True)
    train(graph(), steps=5, resume="run_00001")
    assert list(begun.rglob(".*")) == []


def test_a_damaged_run_json_does_not_block_a_resume(begun, graph, train, same_bits):
    """It was empty after a power cut; the state knows of which run it is."""
    whole, before = train(graph(), steps=5), facts_of(begun)
    (begun / "run.json").write_bytes(b"")
    run = train(graph(), steps=5, resume="run_00001")
    assert same_bits(run.weights, whole.weights)
    assert (run.facts["status"], run.facts["id"]) == ("finished", before["id"])

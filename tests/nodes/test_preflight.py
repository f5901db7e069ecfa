"""What a workflow would train, said without running it, in the words of the nodes."""

import re
import tarfile

import pytest
from comfyui_rollout import nodes
from comfyui_rollout.data import step_preflight
from comfyui_rollout.models.step_memory import StepMemory
from comfyui_rollout.nodes.preflight import preflight
from comfyui_rollout.nodes.training.checks import memory_in_words
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.options import TrainingOptions
from PIL import Image

TINY = StepMemory(1, 1, 1, 0, ())


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one with a caption of many words; a copy that a program kept."""
    place = tmp_path / "images"
    (place / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.png", "b.png", ".ipynb_checkpoints/a.png"):
        Image.new("RGB", (64, 64)).save(place / name)
    (place / "a.txt").write_text("many words " * 40)
    return place


def node(kind, **inputs):
    return {"class_type": kind.NODE_ID, "inputs": inputs}


@pytest.fixture
def prompt(folder, tiny_pipeline):
    """A LoRA training of which nothing has its defaults but what is left out."""
    return {
        "1": node(nodes.LoadPretrained, checkpoint="as in path", path=str(tiny_pipeline("sd")), storage="fp32"),
        "2": node(nodes.AddLora, model=["1", 0], targets="custom", pattern="attn2.to_q, attn2.to_qq"),
        "3": node(nodes.ImageFolderDataset, folder=str(folder), batch_size=2, size=64),
        "4": node(nodes.EncodeDataset, dataset=["3", 0], pipeline=["1", 2]),
        "5": node(nodes.NoisyBatch, dataset=["4", 0], schedule=["1", 1]),
        "6": node(nodes.Rollout, batch=["5", 0], model=["2", 0], max_step_offset=5, probability=1.0, start_step=1275),
        "7": node(nodes.DiffusionLoss, batch=["6", 0], model=["2", 0]),
        "8": node(nodes.Optimizer, lr_schedule="cosine", warmup_steps=100),
        "9": node(nodes.OptimizerStep, loss=["7", 0], model=["2", 0], optimizer=["8", 0], steps=40),
    }


RUN = (
    "node 9 (Optimizer Step): rollouts never begin: they start at step 1275, and the training has 40\n"
    "  the warm-up takes the whole run: warmup_steps 100, and the run has 40 steps; the learning rate gets to 0.0001 "
    "at its end"
)


def test_the_run_is_judged_by_its_widgets(prompt):
    """No folder and no model is looked into for that."""
    assert preflight(prompt) == [RUN]
    prompt["6"]["inputs"]["start_step"], prompt["8"]["inputs"]["warmup_steps"] = 0, 0
    assert preflight(prompt) == []


def test_the_data_is_said_in_the_nodes_words(prompt, build, wire):
    """The very lines that Encode Dataset shows when it runs; nothing is encoded for them."""
    data, run = preflight(prompt, data=True)
    assert run == RUN + "\n  targets: no layer is called attn2.to_qq"
    assert data.startswith("node 4 (Encode Dataset): 2 images x 1 repeat / batch 2 = 1 step per epoch\n")
    pipeline = build(nodes.LoadPretrained, **prompt["1"]["inputs"])["result"][2]
    images = wire(nodes.ImageFolderDataset, **prompt["3"]["inputs"])
    shown = build(nodes.EncodeDataset, dataset=images, pipeline=pipeline)["ui"]["text"]
    assert data.split(": ", 1)[1].split("\n  ") == shown
    assert "left out, hidden or system: .ipynb_checkpoints" in shown
    assert "1 caption is longer than the 56 tokens that the encoder reads, and cut: a.png" in shown


def test_shards_are_said_as_folders_are(prompt, folder, tmp_path):
    """The same pictures in a tar file: what was found in it, and whose captions are cut."""
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for name in ("a.png", "a.txt", "b.png"):
            tar.add(folder / name, name)
    prompt["3"] = node(nodes.ShardDataset, shards=str(tmp_path / "one.tar"), batch_size=2, size=64)
    (encoded,) = (said for said in preflight(prompt, data=True) if said.startswith("node 4"))
    assert encoded.startswith("node 4 (Encode Dataset): 2 images x 1 repeat / batch 2 = 1 step per epoch\n")
    assert "captions: 1 of 2; none for b.png (empty)" in encoded
    assert "of the 1 longest caption, 1 is longer than the 56 tokens that the encoder reads, and cut: a.png" in encoded
    prompt["4"]["inputs"]["dataset"], prompt["3"]["inputs"]["shards"] = ["3", 0], str(tmp_path / "no.tar")
    assert any("shards: there is no" in said for said in preflight(prompt, data=True))


def test_a_model_that_is_not_here_hides_nothing_else(prompt, tmp_path):
    """A hub id that was never fetched, or a path that is wrong: the folder is judged all the same."""
    prompt["1"]["inputs"]["path"] = str(tmp_path / "nowhere")
    data, _ = preflight(prompt, data=True)
    assert "captions: 1 of 2; none for b.png (empty)" in data
    assert "the model is not here" in data


def test_a_folder_that_is_not_here_is_one_line(prompt):
    """And no traceback."""
    prompt["3"]["inputs"]["folder"] = "nowhere"
    assert preflight(prompt, data=True)[0] == "node 3 (Image Folder Dataset): the folder 'nowhere' does not exist"


def test_the_memory_of_a_step_is_told_before_the_run(prompt, monkeypatch):
    """Where the network is large enough to be worth it, with what could be swapped."""
    monkeypatch.setattr(step_preflight, "WORTH_SAYING", 1)
    _, run = preflight(prompt, data=True)
    assert re.search(r"\n  a training step needs about \d+ .B \(.* to compute\); \d+ blocks could be swapped", run)


@pytest.mark.parametrize(("guidance", "guides"), [(1.0, 0), (7.0, 1)])
def test_the_network_that_guides_samples_is_asked_for_where_it_is_used(
    prompt, tiny_pipeline, monkeypatch, guidance, guides
):
    """Before the run and at its beginning: above the guidance at which the family loads it."""
    asked = []
    monkeypatch.setattr(step_preflight, "WORTH_SAYING", 1)
    monkeypatch.setattr(step_preflight, "step_memory", lambda kind, config, plan: asked.append(plan.guide) or TINY)
    prompt["1"]["inputs"]["path"] = str(tiny_pipeline("ideogram4"))
    prompt["2"]["inputs"] = {"model": ["1", 0], "targets": "attention"}
    prompt["10"] = node(nodes.SamplePrompts, model=["2", 0], pipeline=["1", 2], prompts="a", guidance=guidance)
    prompt["9"]["inputs"]["samples"] = ["10", 0]
    preflight(prompt, data=True)
    assert [guide is not None for guide in asked] == [bool(guides)]


def test_the_text_encoders_that_are_trained_along_are_counted(prompt, monkeypatch):
    asked = []
    monkeypatch.setattr(step_preflight, "WORTH_SAYING", 1)
    monkeypatch.setattr(step_preflight, "step_memory", lambda kind, config, plan: asked.append(plan) or TINY)
    prompt["2"]["inputs"] |= {"text_encoders": True, "pattern": "attn2.to_q"}
    preflight(prompt, data=True)
    assert [*asked[0].text_encoders()] == ["text_encoder"]


def test_the_trainer_tells_the_same(prompt, build, wire, monkeypatch, tmp_path):
    """As Optimizer Step says it when it begins, of what is wired to it."""
    monkeypatch.setattr(step_preflight, "WORTH_SAYING", 1)
    pretrained, schedule, pipeline = build(nodes.LoadPretrained, **prompt["1"]["inputs"])["result"]
    images = wire(nodes.ImageFolderDataset, **prompt["3"]["inputs"])
    data = build(nodes.EncodeDataset, dataset=images, pipeline=pipeline, cache_folder=str(tmp_path))["result"][0]
    model = wire(nodes.AddLora, model=pretrained)
    batch = wire(nodes.NoisyBatch, dataset=data, schedule=schedule)
    loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
    options = TrainingOptions()
    (line,) = memory_in_words(loss, model, OptimizerSettings(), options, 10**12, [])
    assert line.endswith("1000.0 GB are here: fits")
    assert memory_in_words(loss, pretrained, OptimizerSettings(), options, 1, [])[0].endswith(
        "change first: the size of the images, and quantize and swap in Load Pretrained together"
    )

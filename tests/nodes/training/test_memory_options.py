"""What saves memory or time goes with whatever else does, with the loss of the plain run; or is refused in one line."""

from itertools import combinations

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.runs.metrics_file import read_metrics
from PIL import Image

LOADED = {
    "swap": {"swap": 1},
    "all kept": {"gradient_checkpointing": False},
    "bf16 storage": {"storage": "bf16"},
    "int8": {"quantize": "int8"},
}
TRAINED = {
    "compile": {"compile": True},
    "bf16 weights": {"weights_dtype": "bf16", "precision": "bf16"},
    "fused": {"fused_backward": True},
    "offload": {"offload_activations": True},
    "bf16": {"precision": "bf16"},
    "halve": {"on_out_of_memory": "halve"},
}
OPTIONS = {**LOADED, **TRAINED}
EXACT = (
    ("swap", "compile", "halve"),
    ("swap", "fused"),
    ("compile", "offload"),
    ("all kept", "compile", "fused", "offload"),
    ("all kept", "offload", "halve"),
)
"""Runs of which no option changes a bit of the loss."""
ROUNDED = (
    ("swap", "bf16 storage", "int8", "compile", "fused", "bf16", "bf16 weights"),
    ("swap", "bf16 storage", "int8", "bf16", "halve"),
    ("all kept", "bf16 storage", "fused", "offload", "bf16", "bf16 weights"),
    ("int8", "fused", "offload", "bf16", "bf16 weights"),
)
"""Runs near the loss of the plain one."""
REFUSED = {
    ("swap", "all kept"): "gradient_checkpointing: swap needs it",
    ("swap", "offload"): "offload_activations: swap in Load Pretrained",
    ("int8", "all kept"): "gradient_checkpointing: ",
    ("bf16 weights", "halve"): "on_out_of_memory",
    ("fused", "halve"): "on_out_of_memory",
}
"""What does not go together, and how the line begins."""


def test_every_pair_is_tried():
    """In one of these runs: what goes with six others at once goes with each of them."""
    tried = {frozenset(pair) for run in (*EXACT, *ROUNDED, *REFUSED) for pair in combinations(run, 2)}
    assert tried == {frozenset(pair) for pair in combinations(OPTIONS, 2)}


@pytest.fixture
def losses(build, wire, tiny_pipeline, tmp_path, monkeypatch):
    """``losses("swap", "compile")``: of three steps of a LoRA on Stable Diffusion 3 with these options."""
    plain_compile = torch.compile

    def eager(module, inputs):
        return module.forward

    monkeypatch.setattr(torch, "compile", lambda *args, **more: plain_compile(*args, **more, backend=eager))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (100 * number, 50, 200)).save(pictures / f"{number}.png")

    def run(*chosen):
        loaded = {"storage": "fp32", "path": str(tiny_pipeline("sd3"))}
        trained = {"steps": 2, "clip_norm": 0.0, "preview_every": 0}
        for name in chosen:
            (loaded if name in LOADED else trained).update(OPTIONS[name])
        model, schedule, pipeline = build(nodes.LoadPretrained, **loaded)["result"]
        images = wire(nodes.ImageFolderDataset, folder=str(pictures), batch_size=2, size=64)
        cache = str(tmp_path / "cache")
        data = wire(nodes.EncodeDataset, dataset=images, pipeline=pipeline, cache_folder=cache)
        model = wire(nodes.AddLora, model=model, rank=2)
        batch = wire(nodes.NoisyBatch, dataset=data, schedule=schedule)
        loss = wire(nodes.DiffusionLoss, batch=batch, model=model)
        optimizer = wire(nodes.Optimizer, learning_rate=0.01)
        inputs = {"loss": loss, "model": model, "optimizer": optimizer, **trained}
        folder = build(nodes.OptimizerStep, **inputs)["result"][1]
        return [row["loss"] for row in read_metrics(folder)]

    return run


@pytest.mark.filterwarnings("ignore")  # those of the compiler are not ours
def test_each_goes_with_each_other(losses):
    """To the bit where none changes a number; near it where one rounds."""
    plain = losses()
    assert len({*plain}) == 2
    assert {run: losses(*run) for run in EXACT} == dict.fromkeys(EXACT, plain)
    for run in ROUNDED:
        assert losses(*run) == pytest.approx(plain, rel=0.05), run


@pytest.mark.parametrize(("pair", "words"), REFUSED.items(), ids=map(" and ".join, REFUSED))
def test_what_does_not_is_refused_in_one_line(losses, pair, words):
    """Before anything is trained."""
    with pytest.raises(ValueError, match=words) as refusal:
        losses(*pair)
    assert "\n" not in str(refusal.value)

"""Load Pretrained: what it lists, what it refuses early, what its wires carry."""

import os
import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.models import quantization
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.nodes.models.pretrained import BY_PATH
from comfyui_rollout.training.stream import Run, Stream

NODE = nodes.LoadPretrained
FAMILIES = sorted(PRETRAINED)


@pytest.fixture
def models(host, tmp_path, monkeypatch):
    """The model folders of this test: ``models / kind``."""
    root = tmp_path / "models"
    monkeypatch.setattr(host, "model_folders", lambda kind: [root / kind], raising=False)
    for kind in ("checkpoints", "diffusers", "vae", "text_encoders"):
        (root / kind).mkdir(parents=True)
    return root


def choices():
    return NODE.INPUT_TYPES()["required"]["checkpoint"][0]


def validate(**inputs):
    return NODE.VALIDATE_INPUTS(**{"checkpoint": BY_PATH, "path": "author/model", "quantize": "none", **inputs})


def changed(**inputs):
    return NODE.IS_CHANGED(**{"checkpoint": BY_PATH, "path": "", **inputs})


def test_model_folders_are_listed(models, tiny_pipeline):
    """Afresh each time the node's inputs are asked for, so that a new file is there after a refresh."""
    assert choices() == [BY_PATH]
    (models / "checkpoints" / "a.safetensors").write_bytes(b"")
    shutil.copytree(tiny_pipeline("sd"), models / "diffusers" / "tiny")
    assert choices() == [BY_PATH, "a.safetensors", "tiny"]


def test_inside_comfyui_its_folders_are_listed(tmp_path, monkeypatch):
    """Those of folder_paths, which knows extra_model_paths.yaml."""
    from comfyui_rollout.hosts.comfyui import ComfyHost
    from comfyui_rollout.hosts.current import hosted_by

    known = {"checkpoints": ([str(tmp_path / "one"), str(tmp_path / "extra")], {".safetensors"})}
    folder_paths = SimpleNamespace(
        folder_names_and_paths=known,
        get_output_directory=lambda: str(tmp_path),
        get_folder_paths=lambda kind: list(known[kind][0]),
    )
    management = ModuleType("comfy.model_management")
    management.get_torch_device = lambda: torch.device("cpu")
    utils = ModuleType("comfy.utils")
    utils.ProgressBar = None
    for name, module in (
        ("folder_paths", folder_paths), ("comfy", ModuleType("comfy")), (management.__name__, management),
        (utils.__name__, utils),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("one", "extra"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.safetensors").write_bytes(b"")
    with hosted_by(ComfyHost()):
        assert choices() == [BY_PATH, "extra.safetensors", "one.safetensors"]


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({"path": "  "}, "path: name a diffusers folder, a .safetensors file or a hub id, or choose a checkpoint"),
        ({"checkpoint": "gone.safetensors"}, "checkpoint: 'gone.safetensors' is not in your model folders"),
        ({"path": "gone.safetensors"}, "path: 'gone.safetensors' is not here: give a folder"),
        ({"path": "models/gone.safetensors"}, "path: 'models/gone.safetensors' is not here"),
        ({"path": "/gone/folder"}, "path: '/gone/folder' is not here"),
        ({"path": "C:\\models\\gone"}, "path: 'C:\\\\models\\\\gone' is not here"),
        ({"path": "~/gone"}, "path: '~/gone' is not here"),
        ({"base": "gone"}, "base: 'gone' is not here"),
        ({"path": "old.ckpt"}, "path: 'old.ckpt' is a pickled file, which can run any code when it is opened"),
        ({"vae": "none.safetensors"}, "vae: 'none.safetensors' is not in the vae folder, and no path"),
        ({"vae": "old.pt"}, "vae: 'old.pt' is a pickled file"),
        ({"text_encoders": "none.safetensors"}, "text_encoders: 'none.safetensors' is not in the text_encoders folder"),
        (
            {"quantize": "int8", "gradient_checkpointing": False},
            "gradient_checkpointing: quantize int8 needs it, for without it every layer keeps its weights unsqueezed",
        ),
        ({"quantize": "fp8", "gradient_checkpointing": False}, "gradient_checkpointing: quantize fp8 needs it"),
        ({"text_encoders": "t5.bin"}, "text_encoders: 't5.bin' is a pickled file"),
    ],
)
@pytest.mark.usefixtures("models")
def test_bad_inputs_are_one_line_each(inputs, line):
    """Before the prompt is queued."""
    answer = validate(**inputs)
    assert isinstance(answer, str)
    assert answer.startswith(line)
    assert "\n" not in answer


def test_good_inputs_pass(models):
    (models / "checkpoints" / "a.safetensors").write_bytes(b"")
    (models / "vae" / "v.safetensors").write_bytes(b"")
    (models / "text_encoders" / "t.safetensors").write_bytes(b"")
    assert validate(checkpoint="a.safetensors", path="") is True
    assert validate(vae="v.safetensors", text_encoders="t.safetensors, t.safetensors") is True


def test_wired_inputs_are_not_known_yet():
    """A path that comes from another node is None while the prompt is checked."""
    assert validate(path=None) is True
    assert validate(quantize=None, vae=None, text_encoders=None) is True
    assert validate(quantize="int8", gradient_checkpointing=None) is True


def test_squeezed_weights_need_gradient_checkpointing(build, tiny_pipeline):
    """Also where the two were wired in; whole weights do without."""
    assert validate(gradient_checkpointing=False) is True
    assert validate(quantize="int8", gradient_checkpointing=True) is True
    with pytest.raises(ValueError, match="quantize int8 needs it"):
        build(NODE, path=str(tiny_pipeline("sd")), quantize="int8", gradient_checkpointing=False)


def test_what_cannot_be_trained_is_not_offered():
    """peft puts no LoRA on torchao's int4."""
    assert NODE.INPUT_TYPES()["required"]["quantize"][0] == ["none", "int8", "fp8", "nf4"]


def test_an_absent_library_is_named_early(monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    assert validate(quantize="nf4").startswith("quantize: nf4 needs bitsandbytes, which is not installed")


@pytest.mark.parametrize("family", FAMILIES)
def test_wires(build, tiny_pipeline, family):
    """Model, schedule and pipeline of every family; nothing is loaded, and the node says what it found."""
    returned = build(NODE, path=str(tiny_pipeline(family)))
    model, schedule, pipeline = returned["result"]
    assert isinstance(model, Stream)
    assert isinstance(pipeline, Pretrained)
    assert pipeline.info.family == family
    assert schedule == pipeline.info.schedule
    assert model.about.pretrained == pipeline
    assert (model.about.has_weights, model.about.size, model.about.classes) == (True, None, pipeline.info.classes)
    (line,) = returned["ui"]["text"]
    assert line.startswith(f"{PRETRAINED[family].title}, ")
    assert line.endswith(" in bf16")


def test_the_network_is_loaded_once_a_run(wire, tiny_pipeline):
    """With the storage, checkpointing and guidance of the widgets; another run loads its own."""
    stream = wire(NODE, path=str(tiny_pipeline("flux")), storage="fp16", guidance=3.5)
    run = Run(stream)
    model = run.value(stream)
    assert run.value(stream) is model
    assert (model.dtype, model.guidance, model.network.is_gradient_checkpointing) == (torch.float16, 3.5, True)
    assert Run(stream).value(stream) is not model


def test_files_are_found_in_their_folders(build, models, tiny_pipeline):
    """Checkpoint, base, VAE and text encoders by the names in ComfyUI's folders."""
    shutil.copytree(tiny_pipeline("sd"), models / "diffusers" / "tiny")
    part = tiny_pipeline("sd") / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(part, models / "checkpoints" / "network.safetensors")
    shutil.copy(part, models / "vae" / "v.safetensors")
    shutil.copy(
        tiny_pipeline("sd") / "text_encoder" / "model.safetensors", models / "text_encoders" / "clip_l.safetensors"
    )
    inputs = {"base": "tiny", "vae": "v.safetensors", "text_encoders": "clip_l.safetensors"}
    source = build(NODE, checkpoint="network.safetensors", **inputs)["result"][2].source
    assert source.path == str(models / "checkpoints" / "network.safetensors")
    assert source.base == str(models / "diffusers" / "tiny")
    assert source.vae == str(models / "vae" / "v.safetensors")
    assert source.text_encoders == (str(models / "text_encoders" / "clip_l.safetensors"),)


def test_what_cannot_be_trained_is_refused_when_the_graph_is_built(build, tmp_path):
    with pytest.raises(ValueError, match=r"is not a pipeline's folder: it has no model_index.json"):
        build(NODE, path=str(tmp_path))


def test_a_changed_file_is_noticed(models, tiny_pipeline):
    """In any of the named places; a hub id never changes by itself."""
    folder = models / "diffusers" / "tiny"
    shutil.copytree(tiny_pipeline("sd"), folder)
    vae = models / "vae" / "v.safetensors"
    vae.write_bytes(b"")
    before = changed(checkpoint="tiny", vae="v.safetensors")
    assert changed(checkpoint="tiny", vae="v.safetensors") == before
    later = max(before) + 10**9
    os.utime(folder / "unet" / "diffusion_pytorch_model.safetensors", ns=(later, later))
    touched = changed(checkpoint="tiny", vae="v.safetensors")
    assert touched != before
    os.utime(vae, ns=(later, later))
    assert changed(checkpoint="tiny", vae="v.safetensors") != touched
    assert changed(path="somebody/model") == changed(path="somebody/model")


def test_old_workflows_keep_their_widgets():
    """Widget values in a saved workflow go by place: a new input comes last."""
    assert list(NODE.INPUT_TYPES()["required"]) == [
        "checkpoint",
        "path",
        "storage",
        "quantize",
        "gradient_checkpointing",
    ]
    assert list(NODE.INPUT_TYPES()["optional"]) == [
        "base", "vae", "prediction", "guidance", "text_encoders", "clip_skip", "swap",
            "attention",
    ]  # fmt: skip

"""SimpleTuner configurations, recorded ones and small ones, brought over; and what is asked of the result."""

from pathlib import Path

from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.__main__ import main
from comfyui_rollout.graph import object_info
from comfyui_rollout.importing.simpletuner import Files, import_config, read_files

ROOT = Path(__file__).parents[3]

DATA = ROOT / "tests" / "recorded" / "simpletuner"

OURS = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)

CONFIGS = ("sdxl_lora_unipc", "flux_lora_auto", "sd3_full_shift", "dreambooth")

IMAGES = {"corgi": 6, "dog": 5, "class-dog": 20}


def bring(name):
    return import_config(read_files(Path(f"{name}.json")))


def small(backends=(), **config):
    """A configuration with these keys; what it needs beside them is there."""
    needed = {"model_family": "flux", "model_type": "lora", "max_train_steps": 10, "grad_clip_method": "norm"}
    folder = {"id": "corgi", "instance_data_dir": "datasets/corgi", "caption_strategy": "textfile", "crop": True}
    return import_config(Files(needed | config, tuple(backends) or (folder,)))


def inputs(imported, kind, place=0):
    """The inputs of a node, by its class without the prefix; links are left out."""
    names = (f"Rollout{kind}", kind)
    found = [node["inputs"] for node in imported.prompt.values() if node["class_type"] in names]
    return {name: value for name, value in found[place].items() if not isinstance(value, list)}


def short(node):
    """A node's class without the prefix, but for Rollout itself."""
    return node["class_type"].removeprefix("Rollout") or "Rollout"


def kinds(imported):
    return [short(node) for node in imported.prompt.values()]


def source(imported, kind, name):
    """The class of the node that an input of the only node of a class is linked to, and the output's index."""
    (node,) = [node for node in imported.prompt.values() if node["class_type"] in (f"Rollout{kind}", kind)]
    origin, slot = node["inputs"][name]
    return short(imported.prompt[origin]), slot


def at_least(found, **expected):
    assert {name: found[name] for name in expected} == expected


def run(*arguments):
    return main(["import-config", *map(str, arguments)])


ROLLOUTS = {"scheduled_sampling_max_step_offset": 10, "scheduled_sampling_probability": 1.0}

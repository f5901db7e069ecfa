"""The workflows that we ship, as prompts of a few seconds: tiny pipelines of each family, few steps, our photos."""

from pathlib import Path

from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.graph import load, object_info, to_prompt

WORKFLOWS = Path(__file__).parents[2] / "workflows"
DEFINITIONS = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
OTHERWISE = {"lora_sd15": "sd", "lora_qwen_image_edit": "qwen_image_edit_plus"}
"""Workflows that are not called as their family."""
FAMILIES = {
    name: OTHERWISE.get(name, name.removeprefix("lora_"))
    for name in sorted(path.stem for path in WORKFLOWS.glob("lora_*.json"))
} | {"dreambooth_rollout": "sd"}
PAIRS = ("lora_qwen_image_edit", "lora_flux_kontext")
"""Those that train on pairs of pictures."""
BESIDE = {"soar_lora": "sd3", "few_steps_lora": "sd3", "fast_lora": "sd3"}
"""Workflows with the plain loss, whose LoRAs are saved as those of their families are."""
DIGITS = ("quickstart_digits", "quickstart_emoji", "rollout_trajectory_digits", "few_steps_digits", "reflow_digits")
"""Workflows that train a model of their own."""

FEW = {
    "RolloutLoadPretrained": {"storage": "fp32", "quantize": "none"},
    "RolloutImageFolderDataset": {"size": 64, "batch_size": 2},
    "RolloutNewModel": {"width": 8},
    "Rollout": {"start_step": 0, "ramp_steps": 0, "probability": 1.0, "max_step_offset": 3, "start": 0.0},
    "RolloutReflow": {"start": 0.0, "pairs": 64, "steps": 2},
    "RolloutSamplePrompts": {"steps": 2},
    "RolloutSampleImages": {"steps": 2, "count": 1},
    "RolloutExposureBiasProbe": {"count": 16, "steps": 2},
    "RolloutOptimizer": {"learning_rate": 0.01, "lr_schedule": "constant"},
    "RolloutOptimizerStep": {"steps": 3, "precision": "fp32", "preview_every": 1},
    "RolloutSaveLora": {"dtype": "fp32"},
}
"""What makes a run of hours one of seconds. Every item is rolled out."""


def made_small(name, pipeline=None, photos=None):
    """The shipped workflow as a prompt, with few steps and our paths."""
    prompt = to_prompt(load(WORKFLOWS / f"{name}.json"), DEFINITIONS)
    folders = iter((photos / "pagoda", photos / "flower")) if photos else iter(())
    for node in prompt.values():
        node["inputs"] |= FEW.get(node["class_type"], {})
        if node["class_type"] == "RolloutLoadPretrained":
            node["inputs"]["path"] = str(pipeline)
        if node["class_type"] == "RolloutImageFolderDataset":
            node["inputs"]["folder"] = str(next(folders))
        if name == "lora_wan" and node["class_type"] == "RolloutSamplePrompts":
            node["inputs"] |= {"width": 64, "height": 64}  # its pipeline would make 832 x 480
        if name in PAIRS and "control" in node["inputs"]:  # the pictures of both folders have the same names
            picture = node["class_type"] == "RolloutSamplePrompts"
            node["inputs"]["control"] = str(photos / "flower" / ("0.jpg" if picture else ""))
    return prompt

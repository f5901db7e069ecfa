"""Run by ComfyUI's python: LoRA files put on models by ComfyUI itself.

``patch_in_comfyui.py jobs.json``: each job names the model's class in ComfyUI, its ``unet_config``, a file with the
network's ``weights`` by diffusers' names, the ``lora``, and the weights ``expected`` of the patched network. Answers
with JSON on the last line, for each job: the keys that ComfyUI did not know, and by how much weights are off. A job
without a class is about text encoders, whose weights go by ComfyUI's names already.
"""

# ruff: noqa: E402  # ComfyUI reads the command line when it is imported

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import comfy.options

comfy.options.enable_args_parsing()
jobs, sys.argv = json.loads(Path(sys.argv[1]).read_text()), [sys.argv[0], "--cpu"]

import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.model_detection
import comfy.utils
import torch
from safetensors.torch import load_file


def in_comfyui(weights, unet_config):
    """A network's weights by ComfyUI's names, as it loads a file from diffusion_models; all must be known."""
    if all(name.startswith("diffusion_model.") for name in weights):
        return weights
    left = dict(weights)
    renamed = comfy.model_detection.convert_diffusers_mmdit(left, "diffusion_model.")
    assert renamed is None or not left, list(left)
    if renamed is None:
        names = comfy.utils.unet_to_diffusers(unet_config)
        renamed = {f"diffusion_model.{names[name]}": value for name, value in weights.items()}
    return renamed


def network(job):
    """Weights and expected weights of a network by ComfyUI's names, and what its layers may be called in files."""
    weights, expected = (in_comfyui(load_file(job[name]), job["unet_config"]) for name in ("weights", "expected"))
    kind = getattr(comfy.model_base, job["class"])
    model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    model.model_config = SimpleNamespace(unet_config=job["unet_config"])
    model.state_dict = lambda: weights
    return weights, expected, comfy.lora.model_lora_keys_unet(model, {})


def text_encoders(job):
    """The same for text encoders."""
    weights, expected = (load_file(job[name]) for name in ("weights", "expected"))
    return weights, expected, comfy.lora.model_lora_keys_clip(SimpleNamespace(state_dict=lambda: weights), {})


def patch(job):
    weights, expected, names = network(job) if "class" in job else text_encoders(job)
    said.clear()
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(load_file(job["lora"])), names)
    for target, adapter in patches.items():
        key, offset, function = (target, None, None) if isinstance(target, str) else (*target, None)[:3]
        weights[key] = comfy.lora.calculate_weight([(1.0, adapter, 1.0, offset, function)], weights[key].clone(), key)
    off = {key: (weights[key] - expected[key]).abs().max().item() for key in expected}
    worst = max(off, key=off.get)
    return {"unknown": list(said), "patched": len(patches), "worst": worst, "off": off[worst]}


said = []
logging.getLogger().addFilter(lambda record: said.append(record.getMessage()) or True)
print(json.dumps([patch(job) for job in jobs]))

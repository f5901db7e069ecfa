"""Run by ComfyUI's python: captions encoded by ComfyUI's own CLIP.

``encode_in_comfyui.py job.json``: a file with CLIP's ``weights``, its ``config``, ``captions``, and ``answer``, the
safetensors file that the encoded captions go into, by their numbers.
"""

# ruff: noqa: E402  # ComfyUI reads the command line when it is imported

import json
import sys
from pathlib import Path

import comfy.options

comfy.options.enable_args_parsing()
job, sys.argv = json.loads(Path(sys.argv[1]).read_text()), [sys.argv[0], "--cpu"]

import comfy.sd1_clip
import torch
from safetensors.torch import load_file, save_file

clip = comfy.sd1_clip.SDClipModel(textmodel_json_config=job["config"], dtype=torch.float32)
clip.load_sd(load_file(job["weights"]))
tokenizer = comfy.sd1_clip.SDTokenizer(embedding_size=job["config"]["hidden_size"])
encoded = {}
with torch.no_grad():
    for number, caption in enumerate(job["captions"]):
        text, _ = clip.encode_token_weights(tokenizer.tokenize_with_weights(caption))[:2]
        encoded[str(number)] = text.contiguous()
save_file(encoded, job["answer"])

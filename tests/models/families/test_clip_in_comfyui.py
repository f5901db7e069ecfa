"""Captions of any length are for CLIP what they are in ComfyUI.

COMFYUI_PATH=/path/to/ComfyUI COMFYUI_PYTHON=/its/python python -m pytest tests/models/families/test_clip_in_comfyui.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.models.families import PRETRAINED
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="set COMFYUI_PATH, and COMFYUI_PYTHON")

SCRIPT = Path(__file__).parents[2] / "support" / "encode_in_comfyui.py"
WORDS = "a photograph of an old red bicycle that leans against a white wall in the rain, "
CAPTIONS = ["a cat", "", WORDS * 4, WORDS * 9, "two dogs, " * 25]
"""Of one window of 75 tokens, of none, of two, of three, and one whose last window is nearly full."""


def test_long_captions_are_encoded_as_comfyui_does(tmp_path):
    """Window by window, to 1e-5; whatever is longer than four windows is cut here and said."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    comfyui = Path(os.environ["COMFYUI_PATH"])
    tokenizer = CLIPTokenizer.from_pretrained(comfyui / "comfy" / "sd1_tokenizer", model_max_length=77)
    config = CLIPTextConfig(
        hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=3, projection_dim=32,
        vocab_size=49408, eos_token_id=49407, bos_token_id=49406,
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = CLIPTextModel(config).eval()
    weights = {name if name.startswith("text_model.") else f"text_model.{name}": value.contiguous()
               for name, value in encoder.state_dict().items()}  # fmt: skip
    save_file(weights, tmp_path / "clip.safetensors")
    job = {
        "config": {**config.to_dict(), "hidden_act": "quick_gelu"},
        "weights": str(tmp_path / "clip.safetensors"),
        "answer": str(tmp_path / "answer.safetensors"),
        "captions": CAPTIONS,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(comfyui)}
    command = [python, str(SCRIPT), str(tmp_path / "job.json")]
    done = subprocess.run(command, cwd=comfyui, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = load_file(tmp_path / "answer.safetensors")
    pipeline = SimpleNamespace(tokenizer=tokenizer, text_encoder=encoder)
    for number, caption in enumerate(CAPTIONS):
        ours = PRETRAINED["sd"].encode_captions(pipeline, [caption])["text"]
        assert ours.shape == theirs[str(number)].shape
        assert torch.allclose(ours, theirs[str(number)], atol=1e-5)

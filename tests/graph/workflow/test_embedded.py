"""Workflows that ComfyUI embeds in the files it saves."""

import json
import struct
import zlib

import pytest
from comfyui_rollout.graph import load
from saved_files import PROMPT, WORKFLOW, png, riff, safetensors


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tEXt", b"workflow\0" + json.dumps(WORKFLOW).encode()),
        (b"zTXt", b"workflow\0\0" + zlib.compress(json.dumps(WORKFLOW).encode())),
        (b"iTXt", b"workflow\0\0\0\0\0" + json.dumps(WORKFLOW).encode()),
        (b"iTXt", b"workflow\0\1\0en\0title\0" + zlib.compress(json.dumps(WORKFLOW).encode())),
    ],
)
def test_reads_the_workflow_of_an_image(tmp_path, kind, body):
    """ComfyUI embeds prompt and workflow in PNG text chunks; the workflow is the one that people edit."""
    path = tmp_path / "image.png"
    path.write_bytes(png((b"IHDR", bytes(13)), (b"tEXt", b"prompt\0" + json.dumps(PROMPT).encode()), (kind, body)))
    assert load(path) == WORKFLOW


def test_reads_the_workflow_of_a_checkpoint(tmp_path):
    """A trained file carries the graph it was trained with."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors({"workflow": json.dumps(WORKFLOW), "prompt": json.dumps(PROMPT)}))
    assert load(path) == WORKFLOW
    path.write_bytes(safetensors({"prompt": json.dumps(PROMPT)}))
    assert load(path) == PROMPT


@pytest.mark.parametrize("prefix", ["", "Exif\0\0"])
@pytest.mark.parametrize("word", ["workflow", "Workflow"])
def test_reads_the_workflow_of_a_webp(tmp_path, prefix, word):
    """ComfyUI writes ``workflow:{...}`` and ``prompt:{...}`` into the EXIF; the frontend looks for no special tag."""
    from PIL import Image

    workflow = WORKFLOW | {"extra": {"text": "größer: 犬"}}
    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x0110] = "prompt:" + json.dumps(PROMPT)
    exif[0x010F] = f"{word}:" + json.dumps(workflow)
    path = tmp_path / "image.webp"
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    assert load(path) == workflow
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(riff((b"VP8 ", b"odd"), (b"EXIF", prefix.encode() + block)))
    assert load(path) == workflow


def test_utf8_in_the_exif_of_a_webp(tmp_path):
    """Some writers do not escape what is beyond ASCII."""
    text = 'workflow:{"nodes": [], "extra": "größer 犬"}'.encode() + b"\0"
    entry = struct.pack("<HHII", 0x010F, 2, len(text), 26)
    path = tmp_path / "image.webp"
    path.write_bytes(riff((b"EXIF", b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + text)))
    assert load(path)["extra"] == "größer 犬"


def test_reads_the_prompt_of_a_webp(tmp_path):
    """A WEBP without a workflow, but with the prompt that was run."""
    from PIL import Image

    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x0110] = "prompt:" + json.dumps(PROMPT)
    Image.new("RGB", (8, 8)).save(tmp_path / "i.webp", exif=exif)
    assert load(tmp_path / "i.webp") == PROMPT

import json
import struct
import zlib

import pytest
from comfyui_rollout.graph import WorkflowError, is_prompt, load

PROMPT = {"1": {"class_type": "A", "inputs": {}}}
WORKFLOW = {"nodes": [], "links": [], "version": 0.4}


def png(*chunks):
    """A PNG of nothing but the given (type, body) chunks."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in [*chunks, (b"IEND", b"")]:
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def safetensors(metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize("workflow", [PROMPT, WORKFLOW, WORKFLOW | {"version": 1, "state": {}}])
def test_reads_json_in_each_format(tmp_path, workflow):
    """UI 0.4, version-1 root and API format come back as saved; a byte order mark does no harm."""
    path = tmp_path / "w.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(workflow).encode())
    assert load(path) == workflow
    assert load(str(path)) == workflow


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


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.json", b'{"nodes": [}', "is not JSON: Expecting value at line 1 column 12"),
        ("w.json", b"", "is not JSON"),
        ("w.json", b"\xff\xfe\x00", "not UTF-8"),
        ("w.json", b"[]", "a list"),
        ("w.json", b"null", "null"),
        ("w.json", b"{}", "no `nodes`"),
        ("w.json", b'{"nodes": {}}', "`nodes` must be a list"),
        ("w.json", b'{"nodes": [], "version": 2}', "version 2"),
        ("w.json", b'{"nodes": [], "version": "1.0"}', "version '1.0'"),
        ("w.json", json.dumps({"prompt": PROMPT}).encode(), "under its `prompt`"),
        ("w.json", b"[" * 100_000, "nested too deeply"),
        ("w.json", b"9" * 10_000, "absurd number"),
        ("w.png", png(), "holds no workflow"),
        ("w.png", png((b"zTXt", b"workflow\0\0junk")), "broken text chunk"),
        ("w.safetensors", safetensors({}), "holds no workflow"),
        ("w.safetensors", b"short", "not a safetensors file"),
        ("w.safetensors", b"\xff" * 16, "not a safetensors file"),
        ("w.safetensors", b"\x04" + bytes(7) + b"junk", "header is broken"),
    ],
)
def test_says_in_one_line_what_is_wrong(tmp_path, name, content, says):
    """Any unreadable file is one WorkflowError line that names the file, never a traceback."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WorkflowError, match=r".") as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert says in message
    assert "\n" not in message


def test_names_a_missing_file(tmp_path):
    """So does a file that is not there, or is a folder."""
    for path in (tmp_path / "nowhere.json", tmp_path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(WorkflowError, match=str(path)):
            load(path)


def test_tells_a_prompt_from_a_workflow():
    """The two formats are told apart by their shape alone."""
    assert is_prompt(PROMPT)
    assert not any(map(is_prompt, [WORKFLOW, {}, [], None, {"1": {}}, {"1": 1}]))

"""Workflow files: read in each format, or refused in a line."""

import json

import pytest
from comfyui_rollout.graph import WorkflowError, is_prompt, load
from saved_files import PROMPT, WORKFLOW, png, riff, safetensors


@pytest.mark.parametrize("workflow", [PROMPT, WORKFLOW, WORKFLOW | {"version": 1, "state": {}}])
def test_reads_json_in_each_format(tmp_path, workflow):
    """UI 0.4, version-1 root and API format come back as saved; a byte order mark does no harm.

    Nor does UTF-16, into which PowerShell redirects what `convert` prints.
    """
    path = tmp_path / "w.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(json.dumps(workflow), encoding=encoding)
        assert load(path) == workflow
        assert load(str(path)) == workflow


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
        ("w.webp", riff((b"VP8 ", b"12345")), "holds no workflow"),
        ("w.webp", riff((b"EXIF", b"")), "holds no workflow"),
        ("w.webp", riff((b"EXIF", b"junk")), "broken EXIF"),
        ("w.webp", riff((b"EXIF", b"II*\0\xff\xff\xff\xff")), ""),
        ("w.webp", b"RIFF\0\0\0\0WEBP", "holds no workflow"),
        (
            "w.jpg",
            b"\xff\xd8\xff\xe0" + bytes(9),
            "is a JPEG image; this kind of file is not read, only JSON, PNG, WEBP",
        ),
        ("w.json", b"GIF89a", "is a GIF image"),
        ("w.avif", b"\0\0\0\x20ftypavif", "is an AVIF image"),
        ("w.mp4", b"\0\0\0\x20ftypisom", "is an MP4 or QuickTime video"),
        ("w.webm", b"\x1a\x45\xdf\xa3", "is a WEBM or Matroska video"),
        ("w.flac", b"fLaC", "is a FLAC sound"),
        ("w.mp3", b"ID3\4", "is an MP3 sound"),
        ("w.wav", b"RIFF1234WAVE", "is a WAV sound"),
        ("w.zip", b"PK\3\4", "is a zip archive, or a pickled"),
        ("w.gz", b"\x1f\x8b\x08", "is a gzip archive"),
        ("w.pdf", b"%PDF-1.7", "is a PDF document"),
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

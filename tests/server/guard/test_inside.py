"""No name leads out of its folder."""

import os
import subprocess
import sys

import pytest
from comfyui_rollout.server.content.files import walk
from comfyui_rollout.server.guard.inside import Outside, inside

GOOD = [
    "a.json",
    "a/b/c.json",
    ".index.json",
    "workflows/100%.json",
    "50%25 off.png",
    "ünï/코드.json",
    "a b.json",
    "con"[:2],
]
BAD = [
    "", ".", "..", "../x", "a/../../x", "a/..", "./a", "a/./b", "a//b", "a/", "/etc/passwd", "//host/share", "~/..",
    "%2e%2e/x", "%2e%2e%2fx", "..%2fx", "%252e%252e%252fx", "%25252e%25252e/x", "a%2f..%2f..%2fx", "%2fetc%2fpasswd",
    "..\\x", "a\\..\\..\\x", "\\\\host\\share", "%5c%5chost", "C:\\x", "C:/x", "c:x", "file.txt:stream", "%43%3a/x",
    "a\0b", "a%00b", "a\nb", "a\x7fb", "nul", "NUL", "con.txt", "Com1", "lpt9.tar.gz", "aux ", "prn.", "conin$", "com¹",
    "a.", "a ", "dots...", "a./b", "x" * 300, "a/" * 1500 + "a", "%" + "25" * 20 + "2e", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_plain_names(tmp_path, name):
    """Plain names, dotted and unusual ones too, stay what they are."""
    assert inside(tmp_path, name) == tmp_path.resolve() / name


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:40])
def test_all_others(tmp_path, name):
    """Whatever some system would read as another place is refused, however often it is encoded."""
    with pytest.raises(Outside):
        inside(tmp_path / "folder", name)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links(tmp_path):
    """A link may lead somewhere else inside the folder, but not out of it, nor in circles."""
    folder = tmp_path / "folder"
    (folder / "real").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "real")
    (folder / "out").symlink_to(tmp_path)
    (folder / "file").symlink_to(tmp_path / "secret")
    (folder / "circle").symlink_to(folder / "circle")
    assert inside(folder, "link/x") == folder.resolve() / "real" / "x"
    for name in ("out/x", "out", "file", "circle/x"):
        with pytest.raises(Outside):
            inside(folder, name)
    (tmp_path / "also").symlink_to(folder)
    assert inside(tmp_path / "also", "x") == folder.resolve() / "x"


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_list_of_files_has_no_links_that_lead_out_or_nowhere(tmp_path):
    """One circle of links does not take the whole list along."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("real.json", "../secret"):
        (folder / name).write_text("{}")
    for name, target in {"also.json": "real.json", "out": tmp_path / "secret", "circle": "circle"}.items():
        (folder / name).symlink_to(target)
    assert [path.name for path in walk(folder)] == ["also.json", "real.json"]


def test_the_room_knows_its_neighbours_only():
    """Importing the server needs neither torch nor our nodes nor the training."""
    code = (
        "import importlib.util, sys, types, pathlib\n"
        "root = types.ModuleType('comfyui_rollout'); root.__path__ = [sys.argv[1]]\n"
        "sys.modules['comfyui_rollout'] = root\n"
        "import comfyui_rollout.server\n"
        "found = [name for name in sys.modules if name.split('.')[0] in ('torch', 'diffusers')"
        " or name.startswith(('comfyui_rollout.nodes', 'comfyui_rollout.training', 'comfyui_rollout.diffusion'))]\n"
        "sys.exit(str(found) if found else 0)\n"
    )
    from pathlib import Path

    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, timeout=60)

"""The browser's code: its pure functions, run by node; and what ComfyUI asks of every file below web/."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
MODULES = sorted(WEB.rglob("*.js"))
ENTRY = WEB / "rollout.js"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@needs_node
def test_the_pure_functions():
    """`node --test tests/web/*.test.mjs`: scales, smoothing, decimation, metrics, sheets of frames, words."""
    tests = sorted(Path(__file__).parent.glob("*.test.mjs"))
    assert tests
    done = subprocess.run(
        ["node", "--test", *tests], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr


@needs_node
def test_a_module_does_nothing_when_it_is_imported():
    """ComfyUI imports every file below web/: those in lib/ must need no page and change nothing."""
    paths = [path.as_uri() for path in MODULES if path != ENTRY]
    script = """
    const before = Object.keys(globalThis).sort().join();
    for (const path of process.argv.slice(1)) await import(path);
    if (Object.keys(globalThis).sort().join() !== before) throw new Error("a global was made");
    """
    command = ["node", "--no-warnings", "--input-type=module", "-e", script, *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_stay_inside(path):
    """Only the entry knows the frontend; nothing is fetched from elsewhere."""
    text = path.read_text(encoding="utf-8")
    imported = re.findall(r"""\bfrom\s+["']([^"']+)["']|\bimport\(["']([^"']+)""", text)
    for target in (static or dynamic for static, dynamic in imported):
        if target in ("../../scripts/app.js", "../../scripts/api.js"):
            assert path == ENTRY
        else:
            assert (path.parent / target).resolve().is_relative_to(WEB), target
            assert (path.parent / target).is_file(), target
    links = set(re.findall(r"https?://[^\s\"'`]+", text))
    assert links <= {"http://www.w3.org/2000/svg"}

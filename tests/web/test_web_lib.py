"""The browser's code: its pure functions, run by node; and what ComfyUI asks of every file below web/."""

import re
import shutil
import subprocess
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
MODULES = sorted(WEB.rglob("*.js"))
ENTRY = WEB / "rollout.js"
IMPORT = re.compile(r"""\bfrom\s+["']([^"']+)["']|\bimport\(["']([^"']+)""")

FLOORS = (
    *("language", "elements", "graph", "server", "rollouts", "curves", "samples", "data", "trainings", "runs"),
    "views",
)
"""The rooms of lib/; each may know those before it."""
MOST_FILES = 14
"""Of a room, as of a folder of Python."""
MOST_LINES = 120
"""Of the entry, which only says what there is and hands it to each other."""

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def imported(path):
    """What a module imports, as it is written there; an import that only names a type is none."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [static or dynamic for static, dynamic in IMPORT.findall(text)]


def arrows():
    """``{module: modules that it imports}``, by names relative to lib/; without the entry, which nobody may import."""
    lib = WEB / "lib"
    return {
        path.relative_to(lib).as_posix(): {
            (path.parent / target).resolve().relative_to(lib).as_posix() for target in imported(path)
        }
        for path in lib.rglob("*.js")
    }


def test_the_rooms_of_the_browser_are_those_of_the_plan():
    """Every module has a room, of a size that is taken in at a glance, and the documentation says what is there."""
    rooms = [path.parent.relative_to(WEB / "lib").as_posix() for path in MODULES if path != ENTRY]
    assert set(rooms) == set(FLOORS)
    assert {room for room in FLOORS if rooms.count(room) > MOST_FILES} == set()
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `web/lib/(\w+)/` \| \w", page, flags=re.MULTILINE) == list(FLOORS)


def test_arrows_go_down_only():
    """Who reads a room of the browser need know only those below it; and no modules import one another in a circle."""
    assert house.upward(arrows(), {room: set(FLOORS[:place]) for place, room in enumerate(FLOORS)}) == []
    assert house.circle(arrows()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_begins_with_what_it_is(path):
    """A newcomer reads one sentence, not the code."""
    assert re.match(r"/\*\*\s+(\* )?\S", path.read_text(encoding="utf-8"))


def test_the_entry_is_a_table_of_contents():
    """What grows in it belongs into a room."""
    assert len(ENTRY.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


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
    for target in imported(path):
        if target in ("../../scripts/app.js", "../../scripts/api.js"):
            assert path == ENTRY
        else:
            assert (path.parent / target).resolve().is_relative_to(WEB), target
            assert (path.parent / target).is_file(), target
    links = set(re.findall(r"https?://[^\s\"'`]+", text))
    assert links <= {"http://www.w3.org/2000/svg"}

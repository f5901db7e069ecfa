"""The plan of the house: who may know whom, and what every room promises."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import house
import mirror
import pytest

ROOT = Path(__file__).resolve().parents[1]
HIDDEN = {"tests", "benchmarks", "build", "dist", "docs"}
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in HIDDEN)

FLOORS = ("files", "diffusion", "hosts", "models", "training", "data", "runs", "nodes", "importing")
"""Each room may know those before it."""
MAY_KNOW = {room: set(FLOORS[:place]) for place, room in enumerate(FLOORS)} | {
    "files": set(),
    "diffusion": set(),
    "hosts": set(),
    "sweeps": {"files", "runs"},
    "graph": {"files"},
    "server": {"graph", "files"},
}
"""Beside itself. Only __init__ and __main__ join the two sides."""

OLD_PLACES = [("training/data.py", "data/data.py")]
"""Names of the README of version 0.1 that have moved up; nothing else may point upwards."""

MOST_FILES = 14
"""Of a folder, beside its __init__: more are not taken in at a glance."""
CATALOGUES = {"models/families", "server/routes"}
"""Folders of one file a thing, all of one kind: one looks a name up there, and reads none of the others."""

HOST_MODULES = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "nodes", "server"}
"""Modules that exist inside ComfyUI only."""
HOST = re.compile(r"hosts/comfyui\w*\.py")
"""The only files that know them."""


def sources():
    return house.sources(ROOT, ROOMS)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


every_source = pytest.mark.parametrize("path", sources(), ids=name_of)


def imports(path):
    """What a file imports: ``(dots, module)`` pairs; ``from . import a`` counts as ``(1, "a")``."""
    return ((dots, module or name) for dots, module, name in house.imports(path))


def test_the_rooms_are_those_of_the_plan():
    """A new room gets its place among the arrows first."""
    assert set(ROOMS) == MAY_KNOW.keys()


def test_arrows_go_down_only():
    """files, diffusion, hosts <- models <- training <- data <- runs <- nodes <- importing; graph <- server."""
    assert house.upward(house.arrows(ROOT, ROOMS), MAY_KNOW) == OLD_PLACES


def test_no_files_import_one_another_in_a_circle():
    """Also not inside functions, or for type checkers only: whoever reads one file need not read a ring of them."""
    assert house.circle(house.arrows(ROOT, ROOMS)) == []


def test_every_room_is_in_the_documentation():
    """docs/architecture.md has each folder with the very sentence that its __init__ begins with."""
    assert house.undocumented(ROOT, ROOMS, (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")) == []


def test_no_folder_is_crowded():
    """A newcomer reads the names of a folder, not a list."""
    assert house.crowded(ROOT, ROOMS, MOST_FILES).keys() <= CATALOGUES


def test_the_tests_mirror_the_modules():
    """Whoever changes a file finds its tests: those of its name, or those that tests/support/mirror.py names."""
    modules, tests = mirror.modules(ROOT, ROOMS), mirror.test_files(ROOT)
    assert mirror.untested(modules - mirror.OLD_NAMES, tests, mirror.TOGETHER) == []
    assert mirror.unclaimed(modules, tests, mirror.TOGETHER, mirror.ASPECTS) == []
    assert mirror.outdated(modules, tests, mirror.TOGETHER) == []
    assert mirror.ASPECTS.keys() <= tests


def test_a_module_without_tests_is_found():
    """The test of the test: a new module, a test whose module has gone, and a name here that is nobody's."""
    modules, tests = {"low/a.py", "low/b.py"}, {"low/test_a.py", "low/test_all.py", "browser/test_x.py", "test_y.py"}
    assert mirror.untested(modules, tests, {"low/test_all.py": ("low/*.py",)}) == []
    assert mirror.unclaimed(modules, tests, {"low/test_all.py": ("low/*.py",)}) == []
    assert mirror.untested(modules, tests, {}) == ["low/b.py"]
    assert mirror.unclaimed(modules, tests, {}) == ["low/test_all.py"]
    assert mirror.outdated(modules, tests, {"low/test_c.py": ("low/c.py",)}) == ["low/c.py", "low/test_c.py"]


@pytest.fixture
def toy(tmp_path):
    """``toy({"low/a.py": "..."})``: a house of two rooms, ``low`` and ``high``, with these files."""

    def build(files):
        faces = {f"{room}/__init__.py": f'"""All that is {room}."""' for room in ("low", "high")}
        for name, text in (faces | files).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return house.arrows(tmp_path, ("low", "high"))

    return build


@pytest.mark.parametrize(
    "text",
    ["from .b import x", "def f():\n    from .b import x", "if TYPE_CHECKING:\n    from . import b"],
    ids=["open", "in a function", "for types"],
)
def test_a_circle_is_found_wherever_it_hides(toy, text):
    """The test of the test: two files that import one another, in each way that hides it."""
    assert house.circle(toy({"low/a.py": "x = 1", "low/b.py": "from .a import x"})) == []
    assert sorted(house.circle(toy({"low/a.py": text, "low/b.py": "x = 1\nfrom .a import x"}))) == [
        "low/a.py",
        "low/b.py",
    ]


def test_an_arrow_upwards_is_found(toy):
    """The test of the test: a lower room that reaches for a higher one."""
    plan = {"low": set(), "high": {"low"}}
    files = {"low/a.py": "x = 1", "high/b.py": "from ..low.a import x"}
    assert house.upward(toy(files), plan) == []
    assert house.upward(toy(files | {"low/c.py": "from ..high import b"}), plan) == [("low/c.py", "high/b.py")]


def test_a_room_without_its_sentence_is_found(toy, tmp_path):
    """The test of the test: a room that the document lacks, one of another sentence, one without any, a crowd."""
    toy({"low/a.py": "x = 1"})
    both = "| `low/` | All that is low. |\n| `high/` | All that is high. |"
    assert house.undocumented(tmp_path, ("low", "high"), both) == []
    assert house.undocumented(tmp_path, ("low", "high"), both.replace("`high/`", "`attic/`")) == ["high"]
    toy({"low/__init__.py": ""})
    assert house.undocumented(tmp_path, ("low", "high"), both) == ["low"]
    assert house.crowded(tmp_path, ("low", "high"), 0) == {"low": 1}


@pytest.mark.parametrize("path", sorted(ROOT.glob("_[!_]*.py")), ids=name_of)
def test_what_the_command_line_is_made_of_knows_no_room(path):
    """What lies beside the rooms is in nobody's arrows: it joins nothing, so that __init__ and __main__ alone do."""
    assert [module for dots, module in imports(path) if dots] == []


def test_nothing_else_lies_beside_the_rooms():
    """A module that joins the two sides cannot hide under another name."""
    assert {path.name for path in ROOT.glob("[!_]*.py")} == set()
    assert {path.name for path in ROOT.glob("__*.py")} == {"__init__.py", "__main__.py"}


@every_source
def test_imports_within_the_house_are_relative(path):
    """ComfyUI loads the pack under a path-like module name: an absolute import would not find it, or find another."""
    own = {"comfyui_rollout", *ROOMS}
    for dots, module in imports(path):
        if not dots and not HOST.fullmatch(name_of(path)):
            assert module.split(".")[0] not in own, f"{name_of(path)} imports {module}"


@every_source
def test_comfyui_is_known_to_the_host_alone(path):
    """Everything else runs without it."""
    for dots, module in imports(path):
        if not dots and module.split(".")[0] in HOST_MODULES:
            assert HOST.fullmatch(name_of(path))


@pytest.mark.parametrize("path", [path for path in sources() if HOST.fullmatch(name_of(path))], ids=name_of)
def test_comfyui_is_imported_only_when_needed(path):
    """The files themselves can be imported where there is no ComfyUI."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name.split(".")[0] for node in top for alias in node.names} | {
        node.module.split(".")[0] for node in top if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert not names & HOST_MODULES


def test_every_folder_of_code_is_installed():
    """`pip install` must bring what a checkout has: setuptools installs only the packages that are listed."""
    tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {path.parent.relative_to(ROOT).parts for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    assert sorted(listed) == sorted(".".join(("comfyui_rollout", *parts)) for parts in {(), *found})


def test_every_folder_with_code_is_a_package():
    """A forgotten __init__.py works in a checkout and fails when installed."""
    assert {path.parent for path in sources() if not (path.parent / "__init__.py").is_file()} == set()


IMPORT = """
import importlib.util, json, os, pathlib, sys, threading
import torch
path, sys.dont_write_bytecode = sys.argv[1], True
state, threads, loaded = torch.get_rng_state(), threading.active_count(), set(sys.modules)
settings = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), os.environ.copy()
# As ComfyUI's load_custom_node does: the module's name is its path, with "_x_" for dots.
name = path.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, os.path.join(path, "__init__.py"))
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert torch.equal(torch.get_rng_state(), state), "random numbers were drawn"
assert threading.active_count() == threads, "a thread was started"
after = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), os.environ.copy()
assert after == settings, "global settings were changed"
found = {"nodes": sorted(module.NODE_CLASS_MAPPINGS), "names": sorted(module.NODE_DISPLAY_NAME_MAPPINGS),
         "web": module.WEB_DIRECTORY, "loaded": sorted({n.split(".")[0] for n in set(sys.modules) - loaded})}
pathlib.Path(sys.argv[2]).write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The pack in a folder of custom nodes, imported as ComfyUI does in a process of its own."""
    place = tmp_path_factory.mktemp("comfyui")
    pack = place / "custom_nodes" / "comfyui-rollout-x.y"
    for path in sources():
        (pack / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, pack / path.relative_to(ROOT))
    before = sorted(place.rglob("*"))
    answer = tmp_path_factory.mktemp("answer") / "found.json"
    command = [sys.executable, "-W", "error", "-c", IMPORT, str(pack), str(answer)]
    process = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process, json.loads(answer.read_text()), before, sorted(place.rglob("*"))


def test_importing_the_pack_does_nothing(imported):
    """No output, no file, no thread, no random number, no changed setting: ComfyUI imports it at every start."""
    process, _, before, after = imported
    assert process.stdout + process.stderr == ""
    assert before == after


def test_comfyui_finds_the_nodes(imported):
    """Whatever folder name the user chose, dots included."""
    _, found, _, _ = imported
    assert found["nodes"] == found["names"]
    assert "RolloutOptimizerStep" in found["nodes"]
    assert found["web"] == "./web"


def test_importing_the_pack_is_cheap(imported):
    """Slow libraries are loaded by the node that needs them, not at every start of ComfyUI."""
    _, found, _, _ = imported
    assert not {"diffusers", "transformers", "accelerate", "sklearn", "matplotlib", "aiohttp"} & set(found["loaded"])


# Words are put together from halves, so that this file may hold them.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|home/\w+|root|Users/\w+|mnt|tmp)" r"/|[A-Z]:\\\\Users", re.ASCII)
TEXTS = {".py", ".md", ".toml", ".txt", ".json", ".js", ".mjs", ".css", ".html", ".yml", ".yaml", ".cfg", ""}


def texts():
    """All text files of the checkout that people write: what git knows, or would if it were added."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return []
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = (ROOT / name for name in listed if not name.startswith("tests/recorded/"))
    return [path for path in paths if path.suffix in TEXTS and path.is_file() and path != Path(__file__)]


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE_PATH], ids=["unfinished", "machine path"])
def test_no_loose_ends(pattern):
    """What is unfinished belongs into an issue, and nobody else has our folders."""
    found = [
        f"{name_of(path)}: {line.strip()}"
        for path in texts()
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert found == []

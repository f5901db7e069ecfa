"""The documentation is complete and true."""

import re
import shutil
import subprocess
from pathlib import Path
from statistics import mean

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.graph import load, object_info, to_prompt, validate
from comfyui_rollout.graph.reference import inputs_of, reference
from comfyui_rollout.models import attention
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.training import optimizers

ROOT = Path(__file__).parents[1]
with pytest.MonkeyPatch.context() as patch:  # the page names all optimizers, and the attention that torch has
    patch.setattr(optimizers, "find_spec", lambda library: library)
    patch.setattr(attention, "find_spec", lambda library: None)
    DEFINITIONS = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORKFLOWS = sorted((ROOT / "workflows").glob("[!c]*.json"))
"""Not those that need ComfyUI's own nodes, comfyui_*: tests/host runs them there."""
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


def test_every_node_and_option_is_documented():
    """docs/nodes.md is what the nodes say of themselves: run `comfyui-rollout nodes --markdown` after a change."""
    page = (ROOT / "docs" / "nodes.md").read_text()
    assert page == reference(DEFINITIONS) + "\n"
    for node in DEFINITIONS.values():
        assert f"`{node['name']}`" in page
        for name, _, facts, _ in inputs_of(node):
            assert f"| `{name}` |" in page
            assert facts["tooltip"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """Pictures and pages that a page points at are in the repository, and no placeholder is left."""
    text = page.read_text(encoding="utf-8")
    assert "{{" not in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda path: path.stem)
def test_blueprints_are_one_node(blueprint):
    """With what people change on it, whose values reach the nodes inside; what is missing is for the user to wire."""
    content = load(blueprint)
    ((node,), (inside,)) = content["nodes"], content["definitions"]["subgraphs"]
    assert node["type"] == inside["id"]
    assert node["title"] == inside["name"] == blueprint.stem
    promoted = [slot["name"] for slot in node["inputs"] if "widget" in slot]
    assert {"folder", "trigger_word", "steps", "rank", "learning_rate", "prompts", "name"} <= set(promoted)
    assert node["widgets_values"] == list(node["widgets_values_named"].values())
    changed = {"folder": str(ROOT / "docs" / "images"), "steps": 7, "trigger_word": "zwx"}
    node["widgets_values"] = [changed.get(name, node["widgets_values_named"][name]) for name in promoted]
    prompt = to_prompt(content, DEFINITIONS)
    inputs = [inner["inputs"] for inner in prompt.values()]
    assert all(any(given.get(name) == value for given in inputs) for name, value in changed.items())
    errors = validate(prompt, NODE_CLASS_MAPPINGS).node_errors
    assert {error["type"] for found in errors.values() for error in found["errors"]} <= {"required_input_missing"}
    assert bool(errors) == any("widget" not in slot for slot in node["inputs"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_shipped_workflows_are_valid(workflow):
    """They convert and validate with today's nodes, are named in the README, and say what to change first."""
    content = load(workflow)
    prompt = to_prompt(content, DEFINITIONS)
    for node in prompt.values():
        if node["inputs"].get("folder") == "":  # for the user to fill in
            node["inputs"]["folder"] = str(ROOT / "docs" / "images")
    validation = validate(prompt, NODE_CLASS_MAPPINGS)
    assert validation.error is None
    assert not validation.node_errors
    assert f"`{workflow.name}`" in (ROOT / "README.md").read_text()
    assert any(
        "Change first" in str(node["widgets_values"]) for node in content["nodes"] if node["type"] == "MarkdownNote"
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_widgets_say_the_same_by_name_and_by_place(workflow):
    """A workflow that was edited by hand in one of the two would run with the values of the other."""
    content = load(workflow)
    by_name = to_prompt(content, DEFINITIONS)
    for node in content["nodes"]:
        node.pop("widgets_values_named", None)
    assert to_prompt(content, DEFINITIONS) == by_name


def test_the_python_of_the_readme_trains(tmp_path, monkeypatch, capsys):
    """Its very text: the loss goes down from where a new model begins, never up to a hundred, and a folder is left."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    with global_seed(0):
        exec(compile(example, "README.md", "exec"), {})
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"step {step}" for step in range(9, 100, 10)
    ]
    losses = [row["loss"] for row in read_metrics(tmp_path / "output" / "digits_00001")]
    assert len(losses) == 100
    assert max(losses) < 3
    assert mean(losses[-20:]) < 0.7 * mean(losses[:20])


def test_the_makefile_lists_its_commands():
    """`make` names every command that the README and CI use."""
    makefile = (ROOT / "Makefile").read_text()
    for command in ("demo", "test", "check", "bench"):
        assert re.search(rf"^{command}:.*## ", makefile, re.MULTILINE), command


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_the_lowest_versions_are_those_of_the_requirements(tmp_path):
    """Every lower bound is tried as it stands; torch, and the tools of the tests, as `make test` has them."""
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["make", ".venv/lowest/versions"], cwd=tmp_path, check=True, capture_output=True)
    tried = pinned(tmp_path / ".venv" / "lowest" / "versions")
    bounds = dict(re.findall(r"^(\w+)>=([\w.]+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    pins = pinned(ROOT / "constraints.txt")
    assert tried == pins | bounds | {"torch": pins["torch"]}


def pinned(path):
    return dict(re.findall(r"^([\w-]+)==([\w.]+)$", path.read_text(), re.MULTILINE))


def test_the_python_that_is_asked_for():
    """One for the pack, which a ComfyUI may run on, and a newer one for the versions that the commands of make pin."""
    readme, project = (ROOT / "README.md").read_text(), (ROOT / "pyproject.toml").read_text()
    asked = re.search(r'requires-python = ">=([\d.]+)"', project)[1]
    assert f"inside ComfyUI, Python {asked} is enough" in readme


def test_the_examples_of_many_gpus_parse():
    """A shell reads the SLURM script, Accelerate its configuration, and the compose file starts what we document."""
    import yaml
    from accelerate.commands.config.config_args import load_config_from_file

    examples = ROOT / "docs" / "examples"
    if shell := shutil.which("bash"):
        subprocess.run([shell, "-n", str(examples / "slurm.sh")], check=True)
    service = yaml.safe_load((examples / "compose.yaml").read_text())["services"]["train"]
    assert {"accelerate", "launch", "comfyui_rollout", "run"} <= set(service["command"])
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 8
    config = load_config_from_file(str(examples / "fsdp.yaml"))
    assert (config.distributed_type.value, config.fsdp_config["fsdp_version"]) == ("FSDP", 2)

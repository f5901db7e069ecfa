"""The documentation is complete and true."""

import re
from pathlib import Path
from statistics import mean

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.graph import load, object_info, to_prompt, validate
from comfyui_rollout.graph.reference import inputs_of, reference
from comfyui_rollout.runs.run_folder import read_metrics
from comfyui_rollout.training import optimizers

ROOT = Path(__file__).parents[1]
with pytest.MonkeyPatch.context() as patch:  # the page names the optimizers of all optional libraries
    patch.setattr(optimizers, "find_spec", lambda library: library)
    DEFINITIONS = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORKFLOWS = sorted((ROOT / "workflows").glob("[!c]*.json"))
"""Not those that need ComfyUI's own nodes, comfyui_*: tests/host runs them there."""


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


def test_the_examples_of_many_gpus_parse():
    """A shell reads the SLURM script, Accelerate its configuration, and the compose file starts what we document."""
    import shutil
    import subprocess

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

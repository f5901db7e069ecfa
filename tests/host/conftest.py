"""A real ComfyUI process on the CPU, with our pack and a pack of tiny models.

COMFYUI_PATH=/path/to/ComfyUI COMFYUI_PYTHON=/its/python python -m pytest tests/host
"""

import os
from pathlib import Path

import pytest
from comfy_process import ROOT, SKIPPED, started

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items):
    if "COMFYUI_PATH" not in os.environ:
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=SKIPPED))


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """The folder's name has all that other packs' names have: a hyphen, a space, a dot, and is a symbolic link."""
    tiny = ROOT / "tests" / "support" / "tiny_comfyui.py"
    with started(tmp_path_factory.mktemp("host"), [tiny], "comfyui-rollout copy v1.0") as comfy:
        yield comfy

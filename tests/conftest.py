"""Tests see this checkout as ``comfyui_rollout``; pytest must not import the pack root itself."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "comfyui_rollout"


def load_pack(name, root=ROOT):
    spec = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if PACKAGE not in sys.modules:
    load_pack(PACKAGE)


class RootIsNotATestPackage:
    @staticmethod
    def pytest_collect_directory(path, parent):
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config):
    config.pluginmanager.register(RootIsNotATestPackage())


def pytest_collection_modifyitems(items):
    """Browser tests come last: Playwright's event loop runs in the main thread until the last of them is over."""
    items.sort(key=lambda item: "browser" in item.path.parts)

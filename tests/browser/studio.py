"""Starts this checkout's command line, whatever copy of the package is installed."""

import importlib.util
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location(
        "comfyui_rollout", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["comfyui_rollout"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runpy.run_module("comfyui_rollout.__main__", run_name="__main__")

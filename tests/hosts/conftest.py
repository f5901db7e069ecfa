"""Just enough of ComfyUI."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from comfyui_rollout.hosts.host import Interrupted


@pytest.fixture
def comfy(monkeypatch):
    """Just enough of ComfyUI's modules to be its node pack; what they are told is remembered."""
    told = []

    class ProgressBar:
        def __init__(self, total, node_id=None):
            self.node_id, self.current = node_id, 0

        def update_absolute(self, value, total=None, preview=None):
            self.current = value
            told.append(("update", self.node_id, value, total, preview))

    def stop():
        raise Interrupted("ComfyUI's own")

    contents = {
        "comfy": {},
        "comfy.model_management": {
            "get_torch_device": lambda: "cpu",
            "throw_exception_if_processing_interrupted": stop,
            "unload_all_models": lambda: told.append(("unload_all_models",)),
            "soft_empty_cache": lambda: told.append(("soft_empty_cache",)),
        },
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy_execution": {},
        "comfy_execution.progress": {
            "get_progress_state": lambda: SimpleNamespace(finish_progress=lambda node: told.append(("finish", node)))
        },
        "folder_paths": {"get_output_directory": lambda: "/their/output"},
        "server": {
            "PromptServer": SimpleNamespace(
                instance=SimpleNamespace(client_id="us", send_sync=lambda *message: told.append(("send", *message)))
            )
        },
    }
    for name, members in contents.items():
        stub = ModuleType(name)
        vars(stub).update(members)
        monkeypatch.setitem(sys.modules, name, stub)
    return told

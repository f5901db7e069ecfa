"""ComfyUI's host, with just enough of ComfyUI; tests/host has the rest, inside a real one."""

from comfyui_rollout.hosts.comfyui import ComfyHost
from PIL import Image


def test_comfyui_lets_go_of_its_models(comfy):
    """Its checkpoints would fill the card on which we encode, train and sample."""
    ComfyHost().make_room()
    assert comfy == [("unload_all_models",), ("soft_empty_cache",)]


def test_comfyui_sees_progress_previews_metrics_and_ends_per_node(comfy):
    """A preview must not reset the progress of its node, nor the other way round."""
    host, picture = ComfyHost(), Image.new("RGBA", (2, 2))
    host.progress("4", 3, 10)
    host.show("4", "noisy", 3, picture)
    host.progress("5", 1, 10)
    host.metrics("6", [{"step": 0}])
    host.finish("4")
    assert host.wants("noisy")
    assert comfy[0] == ("update", "4", 3, 10, None)
    kind, shown, size = comfy[1][-1]
    assert comfy[1][:4] == ("update", "4", 3, None)
    assert (kind, shown.mode, size) == ("JPEG", "RGB", None)
    assert comfy[2:] == [
        ("update", "5", 1, 10, None),
        ("send", "rollout.metrics", {"node": "6", "rows": [{"step": 0}]}, "us"),
        ("finish", "4"),
    ]

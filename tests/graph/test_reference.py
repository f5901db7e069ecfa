"""Node definitions as text for people; that docs/nodes.md holds them is test_docs.py's."""

from comfyui_rollout.graph import object_info
from comfyui_rollout.graph.reference import explained, reference


class Blur:
    """Blurs a picture."""

    CATEGORY, FUNCTION = "filters", "run"
    DESCRIPTION = "Blurs a picture."
    RETURN_TYPES, RETURN_NAMES, OUTPUT_TOOLTIPS = ("IMAGE",), ("blurred",), ("Softer.",)

    @classmethod
    def INPUT_TYPES(cls):
        radius = {"default": 2, "min": 0, "max": 9, "tooltip": "How far."}
        return {
            "required": {"picture": ("IMAGE",), "radius": ("INT", radius)},
            "optional": {"kind": (["box", "gauss"], {"default": "box"}), "mask": ("MASK", {"tooltip": "Where."})},
        }


INFO = object_info({"Blur": Blur}, {"Blur": "Blur Picture"})


def test_a_node_is_explained_in_a_terminal():
    """Each input with its type, its limits, whether it may be left out, and its tooltip below."""
    assert explained(INFO["Blur"]).splitlines() == [
        "Blur: Blur Picture",
        "    Blurs a picture.",
        "",
        "inputs",
        "  picture (IMAGE)",
        "",
        "  radius (INT, default 2, min 0, max 9)",
        "      How far.",
        "  kind (box | gauss, default box, optional)",
        "",
        "  mask (MASK, optional)",
        "      Where.",
        "",
        "outputs",
        "  blurred (IMAGE)",
    ]


def test_all_nodes_are_a_page():
    """A table of inputs and one of outputs, with the same words."""
    page = reference(INFO).splitlines()
    assert "`Blur`. Blurs a picture." in page
    assert "| `radius` | INT 0 .. 9 | `2` | How far. |" in page
    assert '| `kind` | box, gauss | `"box"` |  |' in page
    assert "| `mask` | MASK | optional | Where. |" in page
    assert page[-1] == "| `blurred` | IMAGE | Softer. |"

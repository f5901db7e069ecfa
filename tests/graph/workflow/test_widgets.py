"""The widgets of a node and what a saved workflow says they hold, as the official frontend has them."""

import pytest
from comfyui_rollout.graph import WorkflowError, to_prompt
from saved_flows import inputs


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        ({"seed": ["INT", {}], "b": ["INT", {}]}, [1, "fixed", 2], {"seed": 1, "b": 2}),
        ({"seed": ["INT", {"control_after_generate": False}], "b": ["INT", {}]}, [1, 2], {"seed": 1, "b": 2}),
        ({"a": ["FLOAT", {"control_after_generate": True}], "b": ["INT", {}]}, [1, "fixed", 2], {"a": 1, "b": 2}),
        (
            {"a": [["p", "q"], {"control_after_generate": True}], "b": ["INT", {}]},
            ["q", "fixed", "", 2],
            {"a": "q", "b": 2},
        ),
        ({"a": ["INT", {"forceInput": True}], "b": ["INT", {}]}, [2], {"b": 2}),
        ({"a": ["INT", {"forceInput": True}], "b": ["INT", {}]}, [1, 2], {"b": 2}),
        ({"a": ["INT", {"defaultInput": True}], "b": ["INT", {}]}, [1, 2], {"a": 1, "b": 2}),
        ({"image": [["a.png"], {"image_upload": True}]}, ["a.png", "image"], {"image": "a.png"}),
        (
            {"a": ["INT", {"default": 5}], "b": [["p", "q"], {"default": "q"}], "c": [["p"]]},
            [],
            {"a": 5, "b": "q", "c": "p"},
        ),
        (
            {"a": ["INT"], "b": ["FLOAT"], "c": ["STRING"], "d": ["BOOLEAN"]},
            None,
            {"a": 0, "b": 0, "c": "", "d": False},
        ),
        ({"a": [["p", "q"], {}]}, [None], {"a": "p"}),
        ({"a": ["MODEL"], "b": ["MY", {"widgetType": "STRING"}]}, ["s"], {"b": "s"}),
        ({"a": ["STRING", {}]}, [["x", "y"]], {"a": {"__value__": ["x", "y"]}}),
        ({"a": ["CURVE", {}]}, [[1, 2]], {"a": {"__type__": "CURVE", "__value__": [1, 2]}}),
        ({"a": ["INT", {}], "b": ["INT", {}]}, {"b": 2, "a": 1, "button": None}, {"a": 1, "b": 2}),
    ],
)
def test_widget_slots(flow, node, spec, values, expected):
    """Every kind of extra or missing slot in widgets_values; a shift by one would train with wrong numbers."""
    info = {"K": {"input": {"required": spec}, "output": []}}
    assert inputs(flow([node(1, "K", widgets_values=values)], []), info) == {"1": expected}


def test_widget_order_is_input_order(flow, node):
    """input_order decides, required before optional; what it leaves out comes last."""
    spec = {"required": {"c": ["INT"], "a": ["INT"]}, "optional": {"x": ["INT", {"defaultInput": True}], "b": ["INT"]}}
    info = {"K": {"input": spec, "input_order": {"required": ["a"], "optional": ["x", "b"]}, "output": []}}
    assert inputs(flow([node(1, "K", widgets_values=[1, 2, 3])], []), info) == {"1": {"a": 1, "b": 2, "c": 3}}


def test_names_where_positions_cannot_be_read(flow, node):
    """A class that gained a widget since the file was saved: the named map still fits, and defaults fill the rest."""
    info = {"K": {"input": {"required": {"new": ["INT", {"default": 9}], "a": ["INT"], "b": ["INT"]}}, "output": []}}
    saved = node(1, "K", widgets_values=[1, 2], widgets_values_named={"a": 1, "b": 2})
    assert inputs(flow([saved], []), info) == {"1": {"new": 9, "a": 1, "b": 2}}
    saved = node(1, "K", widgets_values=[7, 8, 6], widgets_values_named={"new": 1, "a": 1, "b": 2})
    assert inputs(flow([saved], []), info) == {"1": {"new": 7, "a": 8, "b": 6}}


def spec_info(**specs):
    return {"Pass": {"input": {"required": specs}, "output": [], "output_node": True}}


@pytest.mark.parametrize(
    ("spec", "value", "sent"),
    [
        # as comfyui-frontend-package 1.58.1 has it: onValueChange of useIntWidget and useFloatWidget
        (("INT", {"min": 0, "max": 100}), 3.5, 4),
        (("INT", {"min": 0, "max": 100}), 2.4, 2),
        (("INT", {"min": 0, "max": 100}), -0.5, 0),
        (("INT", {"min": 64, "max": 4096, "step": 8}), 513, 512),
        (("INT", {"min": 64, "max": 4096, "step": 8}), 516, 520),
        (("INT", {"min": 1, "max": 4096, "step": 8}), 14, 17),
        (("INT", {"min": 0, "max": 2**64 - 1}), 9011990233476201805, 9011990233476201805),
        (("FLOAT", {"min": 0.0, "max": 100.0, "step": 0.1}), 1000.0, 100.0),
        (("FLOAT", {"min": 0.0, "max": 100.0, "step": 0.1}), -1, 0.0),
        (("FLOAT", {"min": 0.0, "max": 100.0, "step": 0.1}), 7.26, 7.3),
        (("FLOAT", {"min": 0.0, "max": 1.0, "step": 0.01, "round": False}), 0.123, 0.12),
        (("FLOAT", {"min": 0.0, "max": 1.0, "step": 0.01, "round": 0.001}), 0.1239, 0.12),
        (("FLOAT", {"min": 0.0, "max": 10.0, "step": 1.0}), 20.25, 20.25),  # no digits, no rounding
        (("FLOAT", {"min": 0.0, "max": 10.0}), 3.14, 3.1),
        (("STRING", {}), "text", "text"),
        (("BOOLEAN", {}), True, True),
        (("INT", {}), "no number", "no number"),
    ],
)
def test_primitive_numbers_are_rounded_as_by_the_frontend(flow, node, spec, value, sent):
    """The target's widget takes the number as if it had been typed in: rounded, and a FLOAT kept within its limits."""
    nodes = [
        node(1, "PrimitiveNode", outputs=[spec[0]], widgets_values=[value, "fixed"]),
        node(2, "Pass", {"x": 1}, widgets_values=[0]),
    ]
    made = to_prompt(flow(nodes, [[1, 1, 0, 2, 0, spec[0]]]), spec_info(x=spec))["2"]["inputs"]["x"]
    assert made == sent
    assert type(made) is type(sent) or isinstance(sent, float)


DYNAMIC = {
    "mode": (
        "COMFY_DYNAMICCOMBO_V3",
        {
            "options": [
                {"key": "none", "inputs": {}},
                {
                    "key": "scale",
                    "inputs": {
                        "required": {"factor": ("FLOAT", {"default": 2.0}), "image": ("IMAGE", {})},
                        "optional": {"seed": ("INT", {"control_after_generate": True})},
                    },
                },
                {
                    "key": "deep",
                    "inputs": {
                        "required": {
                            "kind": ("COMFY_DYNAMICCOMBO_V3", {"options": [
                                {"key": "a", "inputs": {"required": {"n": ("INT", {"default": 7})}}}]}),
                        }
                    },
                },
            ]
        },
    ),
    "after": ("INT", {"default": 5}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "sent"),
    [
        (["none", 3], {"mode": "none", "after": 3}),
        (["scale", 1.5, 11, "fixed", 3], {"mode": "scale", "mode.factor": 1.5, "mode.seed": 11, "after": 3}),
        (["deep", "a", 9, 3], {"mode": "deep", "mode.kind": "a", "mode.kind.n": 9, "after": 3}),
        (["deep"], {"mode": "deep", "mode.kind": "a", "mode.kind.n": 7, "after": 5}),
        ([], {"mode": "none", "after": 5}),
        ({"mode": "scale", "mode.factor": 9.0, "after": 2},
         {"mode": "scale", "mode.factor": 9.0, "mode.seed": 0, "after": 2}),
    ],
)  # fmt: skip
def test_combos_that_bring_inputs_along(flow, node, values, sent):
    """The values behind the combo belong to the chosen option's inputs, and those of the next widgets do not shift."""
    made = to_prompt(flow([node(1, "Pass", widgets_values=values)], []), spec_info(**DYNAMIC))
    assert made["1"]["inputs"] == sent


def test_sockets_of_a_combo_that_brings_inputs_along(flow, node):
    """Links to its inner inputs are kept, to sockets as to widgets."""
    slots = [
        {"name": "mode.image", "type": "IMAGE", "link": 1},
        {"name": "mode.factor", "type": "FLOAT", "widget": {"name": "mode.factor"}, "link": 2},
    ]
    nodes = [node(1, "Source", outputs=["IMAGE", "FLOAT"]), node(2, "Pass", slots, widgets_values=["scale", 1.0, 1])]
    info = spec_info(**DYNAMIC) | {"Source": {"input": {}, "output": ["IMAGE", "FLOAT"]}}
    made = to_prompt(flow(nodes, [[1, 1, 0, 2, 0, "IMAGE"], [2, 1, 1, 2, 1, "FLOAT"]]), info)["2"]["inputs"]
    assert (made["mode.image"], made["mode.factor"]) == (["1", 0], ["1", 1])


@pytest.mark.parametrize(
    "spec",
    [
        ("COMFY_DYNAMICSLOT_V3", {}),
        ("COMFY_DYNAMICGROUP_V3", {}),
        ("COMFY_SOMETHINGNEW_V3", {}),
        ("COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"n": ("INT", {})}}}}),
        (
            "COMFY_DYNAMICCOMBO_V3",
            {"options": [{"key": "a", "inputs": {"required": {"s": ("COMFY_DYNAMICSLOT_V3", {})}}}]},
        ),
    ],
)
def test_kinds_of_inputs_that_are_not_read(flow, node, spec):
    """They are named: left out, they would shift the values of all widgets behind them."""
    workflow = flow([node(4, "Pass", widgets_values=[1, 2])], [])
    with pytest.raises(WorkflowError, match=r"^node 4 \(Pass\): input 'x.*' is of the kind COMFY_\w+_V3, which is not"):
        to_prompt(workflow, spec_info(x=spec, y=("INT", {})))


@pytest.mark.parametrize(
    "spec",
    [("COMFY_MATCHTYPE_V3", {}), ("COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"i": ("IMAGE", {})}}}})],
)
def test_kinds_of_sockets_that_shift_nothing(flow, node, spec):
    nodes = [node(1, "Source", outputs=["IMAGE"]), node(2, "Pass", {"x.i0": 1}, widgets_values=[4])]
    info = spec_info(x=spec, y=("INT", {})) | {"Source": {"input": {}, "output": ["IMAGE"]}}
    made = to_prompt(flow(nodes, [[1, 1, 0, 2, 0, "IMAGE"]]), info)["2"]["inputs"]
    assert made == {"y": 4, "x.i0": ["1", 0]}


def test_values_of_a_class_that_is_not_installed(flow, node):
    """Named by their sockets where a newer file lists those; otherwise the loss is told, with node and number."""
    widget = [
        {"name": n, "type": t, "widget": {"name": n}, "link": None} for n, t in (("seed", "INT"), ("text", "STRING"))
    ]
    nodes = [
        node(1, "Gone", widget, widgets_values=[7, "randomize", "a cat"]),
        node(2, "Gone", widgets_values=[7, "a cat"]),
        node(3, "Gone", widget, widgets_values=[7]),
        node(4, "Gone", widgets_values={"x": 1}),
        node(5, "Gone"),
        node(6, "Note", widgets_values=["hello"]),
    ]
    said = []
    made = to_prompt(flow(nodes, []), {}, warn=said.append)
    assert made["1"]["inputs"] == {"seed": 7, "text": "a cat"}
    assert made["4"]["inputs"] == {"x": 1}
    assert said == [
        "node 2 (Gone): its class is not installed, so its 2 values have no names and are left out",
        "node 3 (Gone): its class is not installed, so its 1 values have no names and are left out",
    ]

import json

from comfyui_rollout.graph import object_info


def test_entry_equals_that_of_a_real_server(mapping, info):
    """A frontend sees our classes as it would in ComfyUI: every shared field is equal."""
    ours = object_info(mapping)["DummyValue"]
    theirs = info["DummyValue"]
    assert set(theirs) - {"output_tooltips"} == set(ours)
    for key in ("input", "input_order", "output", "output_is_list", "output_node", "is_input_list"):
        assert ours[key] == theirs[key]
    assert json.loads(json.dumps(ours)) == ours


def test_class_attributes_are_read(make_class):
    """Names, flags and descriptions reach the frontend."""
    kind = make_class(
        lambda: (1,),
        returns=("INT",),
        RETURN_NAMES=("count",),
        CATEGORY="a/b",
        DESCRIPTION="does",
        OUTPUT_NODE=True,
        EXPERIMENTAL=True,
        OUTPUT_TOOLTIPS=("tip",),
        SEARCH_ALIASES=["x"],
    )
    entry = object_info({"K": kind}, {"K": "Kay"}, "custom_nodes.pack")["K"]
    assert entry["display_name"] == "Kay"
    assert entry["name"] == "K"
    assert entry["python_module"] == "custom_nodes.pack"
    assert (entry["category"], entry["description"], entry["output_name"]) == ("a/b", "does", ["count"])
    assert entry["output_node"] is entry["experimental"] is True
    assert (entry["output_tooltips"], entry["search_aliases"]) == (["tip"], ["x"])
    assert "deprecated" not in entry


def test_broken_class_is_left_out(mapping, make_class, caplog):
    """One bad class must not empty the frontend's node list."""
    broken = {
        "NoTypes": type("NoTypes", (), {}),
        "NotJson": make_class(lambda: (), {"required": {"x": (object(), {})}}),
    }
    broken["Infinite"] = make_class(lambda: (), {"required": {"x": ("FLOAT", {"max": float("inf")})}})
    assert set(object_info(mapping | broken)) == set(mapping)
    assert all(name in caplog.text for name in broken)

"""What a node class declares, read as ComfyUI reads it."""

import pytest
from comfyui_rollout.graph.node_class import hidden_inputs, input_spec, is_async, is_link, is_output


def test_an_input_is_found_in_its_category():
    """A type alone, a type with options, a hidden one by its word; what is not declared has no category."""
    types = {
        "required": {"seed": ("INT", {"min": 1}), "value": ("*",)},
        "optional": {"mode": (["a", "b"], {"default": "b"})},
        "hidden": {"me": "UNIQUE_ID"},
    }
    assert input_spec(types, "seed") == ("INT", "required", {"min": 1})
    assert input_spec(types, "value") == ("*", "required", {})
    assert input_spec(types, "mode") == (["a", "b"], "optional", {"default": "b"})
    assert input_spec(types, "me") == ("UNIQUE_ID", "hidden", {})
    assert input_spec(types, "other") == (None, None, {})
    assert input_spec({"required": None}, "seed") == (None, None, {})


@pytest.mark.parametrize(
    ("value", "link"),
    [(["1", 0], True), (["1", 0.0], True), (["1", 0, 0], False), ([1, 0], False), (["1", "0"], False), ("1", False)],
)
def test_a_link_is_an_id_and_an_output(value, link):
    """A list of two words is a value."""
    assert is_link(value) is link


def test_hidden_inputs_are_those_that_are_asked_for():
    """Declared by a word or by a tuple that begins with it; other words mean nothing to us."""
    types = {"hidden": {"me": "UNIQUE_ID", "all": ("PROMPT", {}), "token": "AUTH_TOKEN_COMFY_ORG", "odd": "SOMETHING"}}
    extra = {"auth_token_comfy_org": "secret"}
    assert hidden_inputs(types, "7", {"7": {}}, extra_data=extra) == {"me": "7", "all": {"7": {}}, "token": "secret"}
    assert hidden_inputs(types, "7") == {"me": "7", "all": {}, "token": None}
    assert hidden_inputs({}, "7") == {}


def test_outputs_and_coroutines_are_known_by_their_class():
    """Whatever is true of OUTPUT_NODE without being True is none, as in ComfyUI."""

    class Plain:
        FUNCTION, OUTPUT_NODE = "run", 1

        def run(self):
            pass

    class Waits(Plain):
        OUTPUT_NODE = True

        async def run(self):
            pass

    assert (is_output(Plain), is_output(Waits)) == (False, True)
    assert (is_async(Plain), is_async(Waits), is_async(object)) == (False, True, False)

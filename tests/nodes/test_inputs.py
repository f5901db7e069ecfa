"""How nodes declare their inputs, and what they say of wrong ones."""

import pytest
from comfyui_rollout.nodes.inputs import checked_name, defaults, integer, number, plain_name, refusal, seed, wire


def test_a_wire_is_not_judged():
    """Its name comes later."""
    assert plain_name(None, "run") is True


@pytest.mark.parametrize("name", ["../x", "CON", "a\nb", "x" * 5000])
def test_a_name_that_comes_through_a_wire(name):
    """What validation could not see is refused before anything is written."""
    with pytest.raises(ValueError, match=r"^name: .* plain file name"):
        checked_name(name, "file")
    assert checked_name("mine", "file") == "mine"


def test_what_nobody_touched_is_read_from_the_declaration():
    """Of required and optional widgets; a socket has no default."""

    class Node:
        @staticmethod
        def INPUT_TYPES():
            required = {"model": wire("MODEL", "A model."), "steps": integer(5, 1, 9, "How many.")}
            return {"required": required, "optional": {"rate": number(0.0, 0.0, 1.0, 0.1, "How fast.")}}

    assert defaults(Node) == {"steps": 5, "rate": 0.0}


def test_a_refusal_begins_with_the_input():
    """Once, whether or not the check says it; other errors are nobody's input."""

    def fail(error):
        raise error

    assert refusal("folder", lambda: fail(ValueError("it is not there"))) == "folder: it is not there"
    assert refusal("folder", lambda: fail(ValueError("folder: it is empty"))) == "folder: it is empty"
    assert refusal("folder", lambda: None) is None
    with pytest.raises(KeyError):
        refusal("folder", lambda: fail(KeyError("bug")))


def test_a_seed_takes_what_comfyuis_does_and_stays_as_it_is():
    """A run is repeated unless somebody asks for another."""
    kind, options = seed("Of the run.")
    assert (kind, options["min"], options["max"], options["control_after_generate"]) == ("INT", 0, 2**64 - 1, "fixed")

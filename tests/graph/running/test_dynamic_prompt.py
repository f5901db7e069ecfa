"""Nodes that expand into others while they run."""

from comfyui_rollout.graph import Executor
from short_prompts import node, of


def test_expansion(basic, log, make_class, run):
    """A node may return a graph: its nodes run under the node's name, and are cached with it."""

    def grow(n):
        graph = {f"g.{i}": node("Add", a=n if i == 0 else [f"g.{i - 1}", 0], b=1) for i in range(3)}
        return {"expand": graph | {"g.s": node("Show", a=["g.2", 0])}, "result": (["g.2", 0], "plain")}

    basic["Grow"] = make_class(grow, {"required": {"n": ("*", {})}}, ("*", "*"))
    executor = Executor(basic)
    prompt = {"1": node("Grow", n=10), "2": node("Show", a=["1", 0]), "3": node("Show", a=["1", 1])}
    result, messages = run(basic, prompt, executor)
    assert result.outputs == {"g.s": {"a": [13]}, "2": {"a": [13]}, "3": {"a": ["plain"]}}
    assert result.meta["g.s"] == {"node_id": "g.s", "display_node": "1", "parent_node": "1", "real_node_id": "1"}
    assert {data["display_node"] for data in of("executing", messages) if data["node"].startswith("g")} == {"1"}
    count = len(log)
    result, _ = run(basic, prompt, executor)
    assert len(log) == count
    assert result.outputs == {"2": {"a": [13]}, "3": {"a": ["plain"]}}
    basic["Grow"].IS_CHANGED = classmethod(lambda cls, n: 1)
    run(basic, prompt, executor)
    assert [entry for entry in log[count:] if entry[0] == "Add"] == []


def test_failure_inside_an_expansion(basic, make_class, run):
    """It is blamed on the node that the user sees."""
    basic["Bad"] = make_class(lambda: 1 / 0, {})
    basic["Grow"] = make_class(lambda: {"expand": {"g": node("Bad")}, "result": (["g", 0],)}, {})
    result, _ = run(basic, {"1": node("Grow"), "2": node("Show", a=["1", 0])})
    assert (result.error["node_id"], result.error["node_type"]) == ("1", "Grow")


def test_expansion_that_waits_for_itself(basic, make_class, run):
    """A circle made while running ends the run, it does not hang it."""
    graph = {"a": node("Add", a=["b", 0], b=1), "b": node("Add", a=["a", 0], b=1)}
    basic["Grow"] = make_class(lambda: {"expand": graph, "result": (["a", 0],)}, {})
    result, _ = run(basic, {"1": node("Grow"), "2": node("Show", a=["1", 0])})
    assert result.error["exception_message"] == "Dependency cycle detected\n"
    assert result.error["node_id"] == "1"

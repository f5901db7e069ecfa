"""Lists: a node is called once per item, and what blocks is handed on."""

from short_prompts import node, of


def test_lists(basic, make_class, run):
    """Nodes are mapped over lists (short ones repeat their last), take whole lists, and splice lists they return."""
    basic["Spread"] = make_class(lambda: ([1, 2, 3],), {}, OUTPUT_IS_LIST=(True,))
    basic["Sum"] = make_class(lambda a: (sum(a),), ["a"], INPUT_IS_LIST=True)
    prompt = {"1": node("Spread"), "2": node("Const", v=10), "3": node("Add", a=["1", 0], b=["2", 0])}
    prompt |= {"4": node("Sum", a=["3", 0]), "5": node("Show", a=["4", 0]), "6": node("Show", a=["3", 0])}
    result, _ = run(basic, prompt)
    assert result.outputs == {"5": {"a": [36]}, "6": {"a": [11, 12, 13]}}


def test_blockers(basic, log, make_class, run):
    """A blocked value stops what takes it, silently or with a message; the rest runs and the run succeeds."""
    blocker = type("ExecutionBlocker", (), {"__init__": lambda self, message: setattr(self, "message", message)})
    basic["Block"] = make_class(lambda m: (blocker(m), 5), {"required": {"m": ("*", {})}}, ("*", "*"))
    prompt = {"1": node("Block", m="why"), "2": node("Show", a=["1", 0]), "3": node("Show", a=["1", 1])}
    prompt |= {"4": node("Block", m=None), "5": node("Show", a=["4", 0])}
    result, messages = run(basic, prompt)
    assert result.status == "success"
    assert [entry for entry in log if entry[0] == "Show"] == [("Show", 5)]
    errors = of("execution_error", messages)
    assert [(error["node_id"], error["exception_message"]) for error in errors] == [("2", "Execution Blocked: why")]

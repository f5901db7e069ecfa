"""What is run again: equal signatures hit, and everything else does not."""

import math

import pytest
from comfyui_rollout.graph import Executor
from short_prompts import node, of


def test_cache_is_by_content(basic, log, run):
    """Renamed ids and titles hit; equal nodes run once; a changed constant runs itself and what depends on it."""
    executor = Executor(basic)
    prompt = {"1": node("Const", v=1), "2": node("Const", v=1), "3": node("Add", a=["1", 0], b=["2", 0])}
    prompt["4"] = node("Show", a=["3", 0])
    run(basic, prompt, executor)
    assert log == [("Const", 1), ("Add", 1, 1), ("Show", 2)]
    renamed = {"a": node("Const", v=1) | {"_meta": {"title": "t"}}, "b": node("Add", a=["a", 0], b=["a", 0])}
    renamed["c"] = node("Show", a=["b", 0])
    result, messages = run(basic, renamed, executor)
    assert len(log) == 3
    assert of("execution_cached", messages)[0]["nodes"] == ["a", "b", "c"]
    assert result.outputs == {"c": {"a": [2]}}
    renamed["a"]["inputs"]["v"] = 5
    run(basic, renamed, executor)
    assert log[3:] == [("Const", 5), ("Add", 5, 5), ("Show", 10)]


def test_what_was_shown_is_in_the_result_also_where_nothing_asks_for_it(basic, log, run):
    """Behind a node that is in the cache itself, as in ComfyUI's history; no event tells of it a second time."""
    executor = Executor(basic)
    prompt = {"1": node("Const", v=1), "2": node("Show", a=["1", 0]), "3": node("Add", a=["1", 0], b=["1", 0])}
    prompt["4"] = node("Show", a=["3", 0])
    run(basic, prompt, executor)
    result, messages = run(basic, prompt, executor, outputs=["4"])
    assert result.outputs == {"2": {"a": [1]}, "4": {"a": [2]}}
    assert [event["node"] for event in of("executed", messages)] == ["4"]


def test_cache_holds_the_last_prompt_only(basic, log, run):
    """Classic mode: what a prompt does not use is forgotten."""
    executor = Executor(basic)
    for value in (1, 2, 1):
        run(basic, {"1": node("Const", v=value), "2": node("Show", a=["1", 0])}, executor)
    assert [entry for entry in log if entry[0] == "Const"] == [("Const", 1), ("Const", 2), ("Const", 1)]
    assert len(executor._cache.entries) == len(executor._cache.signatures._numbers) == 2


@pytest.mark.parametrize(
    ("is_changed", "runs"),
    [
        (lambda cls, v: math.nan, 3),
        (lambda cls, v: float("nan"), 3),
        (lambda cls, v: [float("nan")], 3),
        (lambda cls, v: object(), 3),
        (lambda cls, v: "same", 1),
        (lambda cls, v: {"a": [1, v]}, 1),
        (lambda cls, v: 1 / 0, 3),
    ],
)
def test_is_changed(basic, log, run, is_changed, runs):
    """Equal answers hit; NaN, live objects and exceptions never do, and then what depends on the node runs too."""
    basic["Const"].IS_CHANGED = classmethod(is_changed)
    executor = Executor(basic)
    for _ in range(3):
        run(basic, {"1": node("Const", v=1), "2": node("Show", a=["1", 0])}, executor)
    assert log.count(("Const", 1)) == log.count(("Show", 1)) == runs


def test_is_changed_sees_links_as_none(basic, run):
    """Upstream has not run when it is asked, once per prompt."""
    seen = []
    basic["Show"].IS_CHANGED = classmethod(lambda cls, a: seen.append(a))
    run(basic, {"1": node("Const", v=1), "2": node("Show", a=["1", 0])})
    assert seen == [None]


@pytest.mark.parametrize("how", ["UNIQUE_ID", "NOT_IDEMPOTENT"])
def test_own_id_in_the_key(basic, make_class, run, how):
    """Nodes that are told their id, or must not be shared, run each for itself."""
    seen = []
    types = {"required": {}, "hidden": {"me": "UNIQUE_ID"} if how == "UNIQUE_ID" else {}}
    basic["Own"] = make_class(lambda me=None: (seen.append(me),), types, NOT_IDEMPOTENT=how == "NOT_IDEMPOTENT")
    prompt = {"1": node("Own"), "2": node("Own"), "3": node("Show", a=["1", 0]), "4": node("Show", a=["2", 0])}
    run(basic, prompt)
    assert len(seen) == 2
    assert sorted(map(str, seen)) == (["1", "2"] if how == "UNIQUE_ID" else ["None", "None"])


def test_instances_last(make_class, run):
    """One object per node id and class, from prompt to prompt."""
    made = []
    kind = make_class(lambda: {}, {}, (), OUTPUT_NODE=True, __init__=lambda self: made.append(self))
    kind.IS_CHANGED = classmethod(lambda cls: math.nan)
    executor = Executor({"K": kind})
    for ids in (["1"], ["1"], ["1", "2"], ["2"], ["1"]):
        run({"K": kind}, {node_id: node("K") for node_id in ids}, executor)
    assert len(made) == 3


def test_what_ran_before_an_error_is_kept(basic, log, make_class, run):
    """After mending the graph, only the failed part runs again."""
    basic["Bad"] = make_class(lambda a: 1 / 0, ["a"], (), OUTPUT_NODE=True)
    executor = Executor(basic)
    run(basic, {"1": node("Const", v=1), "2": node("Bad", a=["1", 0])}, executor)
    run(basic, {"1": node("Const", v=1), "2": node("Show", a=["1", 0])}, executor)
    assert log == [("Const", 1), ("Show", 1)]

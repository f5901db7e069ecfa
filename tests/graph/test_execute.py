import asyncio
import math
import threading

import pytest
from comfyui_rollout.graph import Executor, Interrupted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


@pytest.fixture
def log():
    return []


@pytest.fixture
def basic(make_class, log):
    """Const(v) -> v, Add(a, b) -> a + b, Show(a) an output node; each notes its calls in `log`."""

    def const(v):
        log.append(("Const", v))
        return (v,)

    def add(a, b):
        log.append(("Add", a, b))
        return (a + b,)

    def show(a):
        log.append(("Show", a))
        return {"ui": {"a": [a]}}

    types = {"required": {"v": ("*", {})}}
    return {
        "Const": make_class(const, types),
        "Add": make_class(add, ["a", "b"]),
        "Show": make_class(show, ["a"], (), OUTPUT_NODE=True),
    }


def of(kind, messages):
    return [data for name, data in messages if name == kind]


def test_result(basic, run):
    """The result carries what output nodes show, and where they are."""
    prompt = {"1": node("Const", v=1), "2": node("Add", a=["1", 0], b=["1", 0]), "3": node("Show", a=["2", 0])}
    result, _ = run(basic, prompt, prompt_id="p")
    assert (result.status, result.error, result.exception) == ("success", None, None)
    assert result.outputs == {"3": {"a": [2]}}
    assert result.meta == {"3": {"node_id": "3", "display_node": "3", "parent_node": None, "real_node_id": "3"}}


def test_only_what_outputs_need_runs(basic, log, run):
    """Loose nodes do not run, and `outputs` narrows the run."""
    prompt = {"1": node("Const", v=1), "2": node("Show", a=["1", 0]), "3": node("Const", v=3)}
    prompt["4"] = node("Show", a=["3", 0])
    run(basic, prompt, outputs=["2"])
    assert log == [("Const", 1), ("Show", 1)]


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


def test_hidden_inputs(basic, make_class, run):
    """Each hidden input by its kind."""
    seen = {}
    kinds = {"me": "UNIQUE_ID", "all": "PROMPT", "dyn": "DYNPROMPT", "png": "EXTRA_PNGINFO", "key": "API_KEY_COMFY_ORG"}
    kind = make_class(lambda **inputs: seen.update(inputs) or {}, {"hidden": kinds}, (), OUTPUT_NODE=True)
    run({"K": kind}, {"7": node("K")}, extra_data={"extra_pnginfo": {"workflow": 1}, "api_key_comfy_org": "k"})
    assert (seen["me"], seen["png"], seen["key"]) == ("7", {"workflow": 1}, "k")
    assert seen["all"] == {"7": node("K")}
    assert seen["dyn"].get_node("7")["class_type"] == "K"
    assert seen["dyn"].get_original_prompt() is seen["all"]


@pytest.mark.parametrize(("flag", "ran"), [(True, ["Const"]), (False, [])])
def test_lazy_inputs(basic, log, make_class, run, flag, ran):
    """A lazy input's node runs only when check_lazy_status asks for it."""
    types = {"required": {"flag": ("BOOLEAN", {}), "v": ("*", {"lazy": True})}}
    basic["If"] = make_class(
        lambda flag, v: (v,),
        types,
        check_lazy_status=lambda self, flag, v: ["v"] if flag and v is None else [],
    )
    prompt = {"1": node("Const", v=1), "2": node("If", flag=flag, v=["1", 0]), "3": node("Show", a=["2", 0])}
    run(basic, prompt)
    assert [entry[0] for entry in log if entry[0] == "Const"] == ran
    assert log[-1] == ("Show", 1 if flag else None)


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


def test_async_function(basic, run, make_class):
    """A coroutine function is awaited, also where the calling thread runs an event loop."""

    async def later(v):
        await asyncio.sleep(0)
        return (v + 1,)

    basic["Later"] = make_class(later, {"required": {"v": ("*", {})}})
    prompt = {"1": node("Later", v=1), "2": node("Show", a=["1", 0])}
    assert run(basic, prompt)[0].outputs == {"2": {"a": [2]}}

    async def inside():
        return run(basic, prompt)[0].outputs

    assert asyncio.run(inside()) == {"2": {"a": [2]}}


def test_instances_last(make_class, run):
    """One object per node id and class, from prompt to prompt."""
    made = []
    kind = make_class(lambda: {}, {}, (), OUTPUT_NODE=True, __init__=lambda self: made.append(self))
    kind.IS_CHANGED = classmethod(lambda cls: math.nan)
    executor = Executor({"K": kind})
    for ids in (["1"], ["1"], ["1", "2"], ["2"], ["1"]):
        run({"K": kind}, {node_id: node("K") for node_id in ids}, executor)
    assert len(made) == 3


@pytest.mark.parametrize(("returned", "says"), [(None, "not NoneType"), (5, "not int")])
def test_function_that_returns_no_tuple(basic, make_class, run, returned, says):
    """The commonest mistake of a node's author is named."""
    basic["Bad"] = make_class(lambda: returned, {})
    result, _ = run(basic, {"1": node("Bad"), "2": node("Show", a=["1", 0])})
    assert says in result.error["exception_message"]
    assert "must return a tuple of 1 outputs" in result.error["exception_message"]


def test_error_report_is_short_and_safe(basic, make_class, run):
    """Inputs are shortened, and one that cannot even be printed does not hide the error."""

    class Unprintable:
        def __str__(self):
            raise RuntimeError

    basic["Make"] = make_class(lambda: ("x" * 10_000, Unprintable()), {}, ("*", "*"))
    basic["Bad"] = make_class(lambda a, b: 1 / 0, ["a", "b"], (), OUTPUT_NODE=True)
    result, messages = run(basic, {"1": node("Make"), "2": node("Bad", a=["1", 0], b=["1", 1])})
    assert len(result.error["current_inputs"]["a"][0]) < 1100
    assert result.error["current_inputs"]["b"] == ["<Unprintable>"]
    assert result.error["exception_type"] == "ZeroDivisionError"
    assert isinstance(result.exception, ZeroDivisionError)
    assert messages[-1] == ("execution_error", result.error)


def test_what_ran_before_an_error_is_kept(basic, log, make_class, run):
    """After mending the graph, only the failed part runs again."""
    basic["Bad"] = make_class(lambda a: 1 / 0, ["a"], (), OUTPUT_NODE=True)
    executor = Executor(basic)
    run(basic, {"1": node("Const", v=1), "2": node("Bad", a=["1", 0])}, executor)
    run(basic, {"1": node("Const", v=1), "2": node("Show", a=["1", 0])}, executor)
    assert log == [("Const", 1), ("Show", 1)]


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [Interrupted(), Stop()])
def test_base_exceptions_interrupt(basic, make_class, run, error):
    """A stop signal that a node raises or lets through is no failure."""

    def stop():
        raise error

    basic["Stop"] = make_class(stop, {}, (), OUTPUT_NODE=True)
    result, messages = run(basic, {"1": node("Stop")})
    assert (result.status, result.error, result.exception) == ("interrupted", None, error)
    assert messages[-1][0] == "execution_interrupted"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_control_c_propagates_unless_interrupted(basic, make_class, run, error):
    """Ctrl-C ends the program, except where it was meant for the run; the executor can be used again."""

    def stop():
        raise error

    basic["Stop"] = make_class(stop, {}, (), OUTPUT_NODE=True)
    executor = Executor(basic)
    with pytest.raises(error):
        run(basic, {"1": node("Stop")}, executor)
    interrupt = threading.Event()
    basic["Stop"].run = lambda self: interrupt.set() or stop()
    assert run(basic, {"1": node("Stop")}, executor, interrupt=interrupt)[0].status == "interrupted"


def test_interrupt_is_looked_at_before_each_node(basic, log, make_class, run):
    """Set between two nodes, the second does not start."""
    interrupt = threading.Event()
    basic["Set"] = make_class(lambda: (interrupt.set(),), {})
    result, messages = run(basic, {"1": node("Set"), "2": node("Show", a=["1", 0])}, interrupt=interrupt)
    assert (result.status, log) == ("interrupted", [])
    assert of("execution_interrupted", messages)[0]["node_id"] == "2"


def test_progress_of_any_node_from_any_thread(basic, make_class, run):
    """A trainer reports on upstream nodes that ran long ago, from worker threads; one call at a time arrives."""
    executor = Executor(basic)
    inside = []

    def train(a):
        def report(node_id):
            for i in range(20):
                executor.progress(node_id, i + 1, 20)

        threads = [threading.Thread(target=report, args=(node_id,)) for node_id in ("1", "2")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        executor.preview("1", image)
        executor.finish("1")
        executor.send("mine", {"a": a})
        return {}

    image = object()
    basic["Train"] = make_class(train, ["a"], (), OUTPUT_NODE=True)
    messages = []

    def listener(kind, data):
        inside.append(kind)
        messages.append((kind, data))
        assert len(inside) == 1
        inside.pop()

    prompt = {"1": node("Const", v=1), "2": node("Train", a=["1", 0])}
    result, _ = run(basic, prompt, executor, listener=listener, prompt_id="p")
    assert result.status == "success"
    assert len(of("progress", messages)) == 40
    assert of("preview", messages) == [{"node_id": "1", "prompt_id": "p", "image": image}]
    assert of("mine", messages) == [{"a": 1}]
    state = of("progress_state", messages)[-1]["nodes"]
    assert {key: (entry["state"], entry["value"]) for key, entry in state.items()} == {
        "1": ("finished", 20),
        "2": ("finished", 20),
    }


def test_node_runs_before_its_first_preview(basic, make_class, run):
    """The frontend drops a preview at a node's first "running": a cached node is shown running first."""
    executor = Executor(basic)
    basic["Train"] = make_class(lambda a: executor.preview("1", "i") or {}, ["a"], (), OUTPUT_NODE=True)
    basic["Train"].IS_CHANGED = classmethod(lambda cls, a: math.nan)
    prompt = {"1": node("Const", v=1), "2": node("Train", a=["1", 0])}
    run(basic, prompt, executor)
    _, messages = run(basic, prompt, executor)
    index = next(i for i, (kind, _) in enumerate(messages) if kind == "preview")
    assert messages[index - 1][1]["nodes"]["1"]["state"] == "running"


def test_reports_between_runs_do_nothing(basic):
    """A thread that is late does not fail."""
    executor = Executor(basic)
    executor.progress("1", 1, 2)
    executor.preview("1", None)
    executor.finish("1")
    executor.send("x", {})


def test_one_prompt_at_a_time(basic, make_class, run):
    """A second run on the same executor is refused, not mixed in."""
    executor = Executor(basic)
    caught = []

    def again():
        try:
            executor.run({})
        except RuntimeError as error:
            caught.append(error)
        return {}

    basic["Again"] = make_class(again, {}, (), OUTPUT_NODE=True)
    run(basic, {"1": node("Again")}, executor)
    assert len(caught) == 1


def test_broken_nodes_beside_valid_outputs(basic):
    """A prompt that was accepted for some of its outputs may hold anything besides."""
    prompt = {"1": node("Const", v=1), "2": node("Show", a=["1", 0]), "3": {"class_type": "Show"}}
    prompt |= {"4": node("Gone"), "5": node("Show", a=["99", 0]), "6": node("Add", a=["6", 0], b=["7", 0])}
    assert Executor(basic).run(prompt, outputs=["2"]).outputs == {"2": {"a": [1]}}


def test_long_chain(basic, log, run):
    """5,000 nodes in a row run, and again from the cache."""
    prompt = {"0": node("Const", v=0)} | {str(i): node("Add", a=[str(i - 1), 0], b=1) for i in range(1, 5000)}
    prompt["sink"] = node("Show", a=["4999", 0])
    executor = Executor(basic)
    messages = []

    def listener(kind, data):  # thousands of whole progress maps are not kept
        if kind == "execution_cached":
            messages.append(data)

    result, _ = run(basic, prompt, executor, outputs=["sink"], listener=listener)
    assert result.outputs == {"sink": {"a": [4999]}}
    run(basic, prompt, executor, listener=listener)
    assert len(log) == 5001
    assert [len(data["nodes"]) for data in messages] == [0, 5001]


@st.composite
def graphs(draw):
    """A random DAG: node i is fed by up to three earlier ones and has a constant of its own."""
    count = draw(st.integers(2, 12))
    links = [draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else [] for i in range(count)]
    return links, draw(st.integers(0, count - 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs())
def test_random_graphs(make_class, run, graph):
    """Each node runs once, after its sources; then never; then, with one constant changed, exactly its descendants."""
    links, changed = graph
    ran = []
    types = {"required": {"me": ("INT", {}), "c": ("INT", {})}, "optional": {f"s{k}": ("*", {}) for k in range(3)}}
    function = make_class(lambda me, c, **sources: ran.append(me) or (c,), types, OUTPUT_NODE=True)
    prompt = {}
    for i, sources in enumerate(links):
        prompt[str(i)] = node("F", me=i, c=0, **{f"s{k}": [str(j), 0] for k, j in enumerate(sources)})
    executor = Executor({"F": function})
    run({"F": function}, prompt, executor)
    assert sorted(ran) == list(range(len(links)))
    assert all(ran.index(j) < ran.index(i) for i, sources in enumerate(links) for j in sources)
    run({"F": function}, prompt, executor)
    assert len(ran) == len(links)
    prompt[str(changed)]["inputs"]["c"] = 1
    ran.clear()
    run({"F": function}, prompt, executor)
    below = {changed}
    for i, sources in enumerate(links):
        if below.intersection(sources):
            below.add(i)
    assert sorted(ran) == sorted(below)

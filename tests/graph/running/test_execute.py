"""Prompts run: what runs, in which order, what is handed over, and how a run ends."""

import asyncio
import threading

import pytest
from comfyui_rollout.graph import Executor, Interrupted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from short_prompts import node, of


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

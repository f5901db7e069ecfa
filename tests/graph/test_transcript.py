"""Our runner against a recorded session with real ComfyUI: same messages, same fields, same order, same replies."""

import json
import re
import threading

import pytest
from comfyui_rollout.graph import Executor, validate
from recorded_session import REFUSED, messages, reply, spoil, transcript

SKIPPED = ("status", "feature_flags")  # the server's own messages


@pytest.fixture
def recorded():
    return transcript()


def of_the_run(lines):
    """What a section says of the run itself; data is None of what cannot be compared."""
    found = []
    for kind, data in messages(lines):
        is_end = kind == "executing" and data["node"] is None
        if kind not in SKIPPED and not is_end:
            found.append(("preview", None) if kind == "BIN 4" else (kind, data))
    return found


def assert_same(ours, theirs):
    """Theirs in order within ours; what is left over are progress states, of which the recorder saw only some."""
    rest = iter(ours)
    for kind, data in theirs:
        for our_kind, our_data in rest:
            if (our_kind, plain(our_data)) == (kind, plain(data)) or (our_kind == kind and data is None):
                assert data is None or list(our_data) == list(data)
                break
            assert our_kind == "progress_state", (our_kind, our_data, "instead of", kind, data)
        else:
            pytest.fail(f"missing {kind} {data}")
    assert {kind for kind, _ in rest} <= {"progress_state"}


def plain(data):
    """The data without what differs between any two runs."""
    text = json.dumps(data)
    return json.loads(re.sub(r'"(timestamp|prompt_id)": [^,}]+', r'"\1": 0', text))


def test_first_and_cached_run(recorded, host, mapping, prompt, run):
    """The first run reports progress, previews and results; the second is answered from the cache."""
    executor = host.executor = Executor(mapping)
    _, ours = run(mapping, prompt, executor, prompt_id="p1")
    assert_same(ours, of_the_run(recorded["run 1"]))
    _, ours = run(mapping, prompt, executor, prompt_id="p2")
    assert_same(ours, of_the_run(recorded["run 2"]))
    assert all(data["prompt_id"] == "p2" for _, data in ours)


def test_failing_run(recorded, host, mapping, prompt, run):
    """A node that raises ends the run with an execution_error of ComfyUI's fields."""
    executor = host.executor = Executor(mapping)
    run(mapping, prompt, executor)
    prompt["3"] = {"class_type": "DummyFail", "inputs": {"value": ["1", 0], "msg": "boom"}}
    result, ours = run(mapping, prompt, executor, outputs=["3", "2"])
    assert_same(ours, of_the_run(recorded["fail"]))
    (jobs,) = recorded["JOBS"]
    theirs, _ = json.JSONDecoder().raw_decode(jobs, jobs.index('"execution_error": ') + len('"execution_error": '))
    assert list(result.error) == list(theirs)
    same = ("node_id", "node_type", "executed", "exception_message", "exception_type", "current_inputs")
    assert {key: result.error[key] for key in same} == {key: theirs[key] for key in same}
    assert sorted(result.error["current_outputs"]) == sorted(theirs["current_outputs"])
    assert "raise ValueError(msg)" in result.error["traceback"][-1]


def test_interrupted_run(recorded, host, mapping, prompt, run):
    """A node stopped in the middle ends the run with execution_interrupted."""
    executor = host.executor = Executor(mapping)
    interrupt = threading.Event()

    def stop(i):
        if i == 2:
            interrupt.set()
            raise RuntimeError("whatever a node raises when it is stopped")

    host.on_progress = stop
    prompt["1"]["inputs"] |= {"n": 60, "seed": 99}
    result, ours = run(mapping, prompt, executor, interrupt=interrupt)
    assert_same(ours, of_the_run(recorded["INT"]))
    assert (result.status, result.error) == ("interrupted", None)


@pytest.mark.parametrize("name", REFUSED)
def test_each_400_reply(recorded, mapping, prompt, name):
    """Every refusal is what a real server answers, field by field; a dangling link says more."""
    spoil(prompt, name)
    theirs = reply(recorded[f"bad {name}"])
    validation = validate(prompt, mapping)
    ours = json.loads(json.dumps({"error": validation.error, "node_errors": validation.node_errors}))
    if name == "danglinglink":
        for answer in (ours, theirs):
            answer["error"]["details"] = "..."
            found = answer["node_errors"]["2"]["errors"][0]
            found["details"] = found["extra_info"]["traceback"] = "..."
        said = validation.node_errors["2"]["errors"][0]["details"]
        assert said == "node 2 input value is linked to node 99, which does not exist"
    assert ours == theirs
    assert json.dumps(ours) == json.dumps(theirs)
    assert validation.outputs == []


def test_partial_success(recorded, mapping, prompt):
    """Good outputs run beside bad ones: no error, but node_errors."""
    prompt["3"] = {"class_type": "DummyFail", "inputs": {"value": ["1", 0], "msg": "bad"}}
    theirs = reply(recorded["bad custom"])
    validation = validate(prompt, mapping)
    assert validation.error is None
    assert validation.outputs == ["2"]
    assert validation.node_errors == theirs["node_errors"]

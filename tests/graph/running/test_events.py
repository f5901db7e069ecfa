"""What is reported while a prompt runs."""

import math
import threading

from comfyui_rollout.graph import Executor
from short_prompts import node, of


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

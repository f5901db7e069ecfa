"""Streams: diamonds, generators, errors, what is kept and what is shown."""

import dataclasses

import pytest
import torch
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.training.stream import Run, Step, StepError, Stream


def constant(value):
    return lambda step, **inputs: value


def draw(step, **inputs):
    return torch.rand(4, generator=step.generator())


def test_a_diamond_is_computed_once():
    """Two losses on one rollout must see the same rollout, and pay for it once."""
    calls = []

    def top(step):
        calls.append(step.index)
        return object()

    source = Stream(top)
    left, right = (Stream(lambda step, x: x, {"x": source}) for _ in range(2))
    both = Stream(lambda step, a, b: (a, b), {"a": left, "b": right})
    run = Run(both)
    first, second = (Step(run, index).value(both) for index in range(2))
    assert calls == [0, 1]
    assert first[0] is first[1]
    assert first[0] is not second[0]


def test_none_is_a_value_too():
    """A node that returns nothing is still asked only once a step."""
    calls = []
    stream = Stream(lambda step: calls.append(1))
    step = Step(Run(stream), 0)
    assert step.value(stream) is step.value(stream) is None
    assert calls == [1]


def test_constants_come_back_as_they_are():
    """Widget values are passed to the node unchanged."""
    step = Step(Run(), 0)
    assert step.value(3) == 3
    assert step.value(None) is None


def test_a_stream_is_frozen():
    """ComfyUI caches what a node returned, so nothing may write on it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stream(constant(1)).node_id = "2"


def test_streams_with_equal_contents_stay_two():
    """Two Noisy Batch nodes with equal settings draw different noise: they are compared by identity."""
    function, inputs = constant(1), {}
    assert Stream(function, inputs) != Stream(function, inputs)


def test_walk_gives_each_stream_once_inputs_first():
    """Progress and preflight checks go over the graph in the order in which it is computed."""
    source = Stream(constant(1), node_id="source")
    left, right = (Stream(constant(1), {"x": source, "k": 5}, name) for name in ("left", "right"))
    last = Stream(constant(1), {"a": left, "b": right, "again": source}, "last")
    order = [stream.node_id for stream in last.walk()]
    assert order[0] == "source"
    assert order[-1] == "last"
    assert sorted(order) == ["last", "left", "right", "source"]


def test_a_long_chain_can_be_walked():
    """A large graph is no reason for a recursion error before anything has run."""
    stream = Stream(constant(1))
    for _ in range(5000):
        stream = Stream(constant(1), {"x": stream})
    assert sum(1 for _ in stream.walk()) == 5001


def test_constants_are_found_anywhere_upstream():
    """A loss finds the schedule that its batch was made with."""
    source = Stream(constant(1), {"size": 8, "name": "a"})
    last = Stream(constant(1), {"x": source, "label": "b"})
    assert sorted(last.constants(str)) == ["a", "b"]
    assert list(last.constants(int)) == [8]


def test_wants_of_the_whole_graph_are_collected():
    """Rollout learns what losses downstream of it would like, in any stream of the run."""
    source = Stream(constant(1), wants=frozenset({"a"}))
    loss = Stream(constant(1), {"x": source}, wants=frozenset({"b"}))
    assert Run(loss, Stream(constant(1), wants=frozenset({"c"}))).wants == {"a", "b", "c"}
    assert Run(Stream(constant(1))).wants == frozenset()


def test_random_numbers_depend_on_seed_node_and_step_only():
    """Adding a node or a preview must not shift anybody else's noise."""
    node, other = Stream(draw, node_id="4"), Stream(draw, node_id="5")
    alone = Step(Run(node, seed=1), 3).value(node)
    step = Step(Run(node, other, seed=1), 3)
    assert not torch.equal(step.value(other), alone)
    assert torch.equal(step.value(node), alone)
    assert not torch.equal(Step(Run(node, seed=2), 3).value(node), alone)
    assert not torch.equal(Step(Run(node, seed=1), 4).value(node), alone)


def test_one_generator_a_step():
    """A node that draws twice gets two draws, not the same one again."""
    stream = Stream(lambda step: [draw(step), draw(step)], node_id="4")
    first, second = Step(Run(stream), 0).value(stream)
    assert not torch.equal(first, second)


def test_the_global_generator_is_left_alone():
    """Nothing in a step reads or moves the user's own random numbers."""
    before = torch.get_rng_state()
    stream = Stream(draw)
    Step(Run(stream), 0).value(stream)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_names_node_title_and_step():
    """ComfyUI outlines Optimizer Step, so the message itself must say which node failed, and when."""

    def fail(step):
        raise ValueError("no memory left")

    inner = Stream(fail, node_id="4", title="Rollout")
    outer = Stream(constant(1), {"x": inner}, "5", "Loss")
    with pytest.raises(StepError) as caught:
        Step(Run(outer), 34, update=17).value(outer)
    assert str(caught.value) == "node 4 (Rollout), step 17: no memory left"
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_the_compiler_says_of_its_insides_is_one_line():
    """With what helps, in place of a page of it."""

    def fail(step):
        raise AssertionError("lift_tracked\n\nfrom user code:\n  File ...\n\nSet TORCHDYNAMO_VERBOSE=1 for the trace")

    stream = Stream(fail, node_id="7", title="Loss")
    with pytest.raises(StepError, match=r"^node 7 \(Loss\), step 0: compile: torch cannot [^\n]*switch it off in .*$"):
        Step(Run(stream), 0).value(stream)


def test_an_error_without_words_is_named_by_its_type():
    """A bare assertion still tells something."""

    def fail(step):
        raise AssertionError

    stream = Stream(fail, node_id="4", title="Rollout")
    with pytest.raises(StepError, match=r"step 0: AssertionError$"):
        Step(Run(stream), 0).value(stream)


@pytest.mark.parametrize("stop", [Interrupted("stop"), KeyboardInterrupt()])
def test_an_interrupt_passes_through_unwrapped(stop):
    """The user's stop is no failure: hosts look for exactly the exception that they raised."""

    def interrupted(step):
        raise stop

    stream = Stream(interrupted, node_id="4", title="Rollout")
    with pytest.raises(type(stop)) as caught:
        Step(Run(stream), 0).value(stream)
    assert caught.value is stop


def test_the_current_node_is_the_one_that_runs():
    """What a node shows or reports appears on that node, also after an inner one ran or failed."""
    seen = []

    def note(step, **inputs):
        seen.append(step.node_id)

    def fail(step):
        raise ValueError

    inner = Stream(note, node_id="inner")
    outer = Stream(note, {"x": inner}, "outer")
    broken = Stream(fail, node_id="broken")
    step = Step(Run(outer), 0)
    step.value(outer)
    with pytest.raises(StepError):
        step.value(broken)
    assert seen == ["inner", "outer"]
    assert step.node_id == ""


def test_kept_values_survive_the_step_but_not_the_run():
    """The live model is made once a run, and a second run starts from scratch."""
    stream = Stream(lambda step: step.keep(object), node_id="model")
    run = Run(stream)
    first, second = (Step(run, index).value(stream) for index in range(2))
    assert first is second is run.value(stream)
    assert Run(stream).value(stream) is not first


def test_each_node_keeps_its_own():
    """Two models in one graph are two."""
    left, right = (Stream(lambda step: step.keep(object)) for _ in range(2))
    run = Run(left, right)
    assert run.value(left) is not run.value(right)


def test_a_reported_tensor_is_averaged_and_lets_go_of_its_graph():
    """Metrics must not keep the step's activations alive, nor wait for the device."""

    def report(step):
        step.report("loss", torch.tensor([1.0, 3.0], dtype=torch.bfloat16, requires_grad=True) * 1)
        step.report("rate", 0.5)

    step = Step(Run(), 0)
    step.value(Stream(report))
    assert isinstance(step.metrics["loss"], torch.Tensor)
    assert not step.metrics["loss"].requires_grad
    assert step.metrics["loss"].dtype == torch.float32
    assert float(step.metrics["loss"]) == 2.0
    assert step.metrics["rate"] == 0.5


@pytest.mark.parametrize(("watched", "wanted", "made"), [(True, True, 1), (False, True, 0), (True, False, 0)])
def test_a_picture_is_made_only_if_somebody_looks(listener, watched, wanted, made):
    """Previews cost nothing in the steps between."""
    pictures = []

    def show(step):
        step.show("noisy", lambda: pictures.append("picture") or "picture")

    host = listener("noisy") if wanted else listener()
    stream = Stream(show, node_id="4")
    Step(Run(stream, host=host), 6, update=3, watched=watched).value(stream)
    assert len(pictures) == made
    assert host.told == [("show", "4", "noisy", 3, "picture")] * made

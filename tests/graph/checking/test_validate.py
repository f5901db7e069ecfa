"""Prompts checked before they run: targets, links, cycles, and checks of the nodes' own."""

import json

import pytest
from comfyui_rollout.graph import describe, validate
from hypothesis import given, settings
from hypothesis import strategies as st


def kinds(validation):
    found = validation.node_errors.items()
    return {node_id: [error["type"] for error in entry["errors"]] for node_id, entry in found}


@pytest.mark.parametrize("prompt", [None, [], "x", 3])
def test_no_prompt(prompt):
    """What is not an object at all has a reply too."""
    assert validate(prompt, {}).error["type"] == "no_prompt"


def test_empty_prompt(mapping):
    """Nothing to run is said so, also for targets that are no outputs."""
    assert validate({}, mapping).error["type"] == "prompt_no_outputs"


def test_targets(mapping, prompt):
    """A client may ask for some outputs only; errors of the others do not count."""
    prompt["3"] = {"class_type": "DummyFail", "inputs": {}}
    assert validate(prompt, mapping, targets=["2"]).node_errors == {}
    assert kinds(validate(prompt, mapping, targets=["3"])) == {"3": ["required_input_missing"] * 2}
    assert validate(prompt, mapping, targets=["1"]).error["type"] == "prompt_no_outputs"


@pytest.mark.parametrize(
    ("made", "wanted", "fits"),
    [
        ("A", "A", True),
        ("A", "B", False),
        ("*", "B", True),
        ("A", "*", True),
        ("A,B", "B, C", True),
        ("A,B", "C", False),
        (["x"], "COMBO", True),
        (["x"], ["x"], True),
        (["x"], ["y"], False),
    ],
)
def test_link_types(make_class, made, wanted, fits):
    """Equal, wildcard, or overlapping unions."""
    source = make_class(lambda: (1,), {}, (made,))
    sink = make_class(lambda a: (), {"required": {"a": (wanted, {})}}, (), OUTPUT_NODE=True)
    prompt = {"1": {"class_type": "S", "inputs": {}}, "2": {"class_type": "T", "inputs": {"a": ["1", 0]}}}
    found = kinds(validate(prompt, {"S": source, "T": sink}))
    assert found == ({} if fits else {"2": ["return_type_mismatch"]})


def test_validate_inputs(make_class):
    """It gets the inputs it names (linked ones as None), switches off their checks, and may return a reason."""
    seen = {}

    def check(cls, a, b, input_types):
        seen.update(a=a, b=b, types=input_types)
        return "no good"

    types = {"required": {"a": ("INT", {"max": 3}), "b": ("A", {}), "c": ("INT", {"max": 3})}}
    sink = make_class(lambda a, b, c: (), types, (), OUTPUT_NODE=True, VALIDATE_INPUTS=classmethod(check))
    source = make_class(lambda: (1,), {}, ("B",))
    prompt = {"1": {"class_type": "S", "inputs": {}}}
    prompt["2"] = {"class_type": "T", "inputs": {"a": 9, "b": ["1", 0], "c": 9}}
    errors = validate(prompt, {"S": source, "T": sink}).node_errors["2"]["errors"]
    assert seen == {"a": 9, "b": None, "types": {"b": "B"}}
    assert errors[0]["type"] == "value_bigger_than_max"
    assert errors[0]["details"] == "c"
    assert [error["details"] for error in errors[1:]] == ["a - no good"]


def test_validate_inputs_with_all_inputs(make_class):
    """**kwargs takes over every input; a coroutine is awaited; True passes."""

    async def check(cls, **inputs):
        return inputs == {"a": 9}

    types = {"required": {"a": ("INT", {"max": 3})}}
    kind = make_class(lambda a: (), types, (), OUTPUT_NODE=True, VALIDATE_INPUTS=classmethod(check))
    assert validate({"1": {"class_type": "K", "inputs": {"a": 9}}}, {"K": kind}).error is None
    found = validate({"1": {"class_type": "K", "inputs": {"a": 8}}}, {"K": kind})
    assert found.node_errors["1"]["errors"][0]["details"] == "a"


def test_check_that_raises_upstream(make_class, mapping, prompt):
    """An exception is blamed on the node whose check raised, with the link it was reached by."""

    def check(cls, a):
        raise RuntimeError("oops")

    types = {"required": {"a": ("INT", {})}}
    mapping["Bad"] = make_class(lambda a: (1,), types, ("DUMMY_VALUE",), VALIDATE_INPUTS=classmethod(check))
    prompt["1"] = {"class_type": "Bad", "inputs": {"a": 1}}
    del prompt["2"]["inputs"]["number"]
    validation = validate(prompt, mapping)
    error = validation.node_errors["1"]["errors"][0]
    assert error["type"] == "exception_during_inner_validation"
    assert error["message"] == "Exception when validating inner node"
    expected = ("input_name", "input_config", "exception_message", "exception_type", "traceback", "linked_node")
    assert tuple(error["extra_info"]) == expected
    assert (error["details"], error["extra_info"]["linked_node"]) == ("oops", ["1", 0])
    assert validation.node_errors["1"]["dependent_outputs"] == ["2"]


def test_link_to_an_output_that_is_not_there(mapping, prompt):
    """A slot number too high says how many there are."""
    prompt["2"]["inputs"]["value"] = ["1", 7]
    error = validate(prompt, mapping).node_errors["2"]["errors"][0]
    assert error["details"] == "node 2 input value is linked to output 7 of node 1, which has 2 outputs"
    assert error["extra_info"]["exception_type"] == "IndexError"


def chain(count, first):
    nodes = {"0": {"class_type": "First", "inputs": first}}
    nodes |= {str(i): {"class_type": "Step", "inputs": {"a": [str(i - 1), 0]}} for i in range(1, count)}
    return nodes | {"sink": {"class_type": "Sink", "inputs": {"a": [str(count - 1), 0]}}}


@pytest.fixture
def steps(make_class):
    sink = make_class(lambda a: (), ["a"], (), OUTPUT_NODE=True)
    return {"First": make_class(lambda a: (a,), ["a"]), "Step": make_class(lambda a: (a,), ["a"]), "Sink": sink}


def test_long_chain_and_long_cycle(steps):
    """5,000 nodes in a row need no recursion, and the reply for a cycle of them stays small."""
    assert validate(chain(5000, {"a": 1}), steps).outputs == ["sink"]
    validation = validate(chain(5000, {"a": ["4999", 0]}), steps)
    assert validation.error["type"] == "prompt_outputs_failed_validation"
    assert set(kinds(validation)) == {str(i) for i in range(5000)}
    assert len(json.dumps(validation.node_errors)) < 20_000_000
    assert kinds(validate(chain(5000, {}), steps)) == {"0": ["required_input_missing"]}


def test_cycle_of_two(steps):
    """Both members are told, with the path."""
    validation = validate(chain(2, {"a": ["1", 0]}), steps)
    details = {node_id: entry["errors"][0]["details"] for node_id, entry in validation.node_errors.items()}
    assert details == dict.fromkeys(("0", "1"), "1 (Step) -> 0 (First) -> 1 (Step)")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1", "2", "DummySink"]),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=5), items, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_junk_never_crashes(data):
    """Whatever a client sends, it gets a reply."""
    inputs = st.dictionaries(st.sampled_from(["value", "number", "x", "n", "mode"]), json_values, max_size=4)
    node = st.fixed_dictionaries({"class_type": st.sampled_from(["A", "B"]), "inputs": inputs | json_values})
    prompt = data.draw(st.dictionaries(st.sampled_from(["1", "2", "3"]), node | json_values, max_size=3))
    validation = validate(prompt, JUNK_MAPPING)
    assert all("\n" not in line for line in describe(validation, prompt))
    assert (validation.error is None) == bool(validation.outputs)


class Junk:
    """An output node with every kind of widget."""

    RETURN_TYPES = ("FLOAT",)
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        required = {"x": ("FLOAT", {"min": 0}), "n": ("INT", {"max": 3}), "mode": (["a"], {})}
        return {"required": required, "optional": {"value": ("*", {}), "number": ("STRING", {})}}


JUNK_MAPPING = {"A": Junk, "B": Junk}


@pytest.mark.parametrize("value", [float("nan"), "nan", float("inf"), "-inf"])
def test_a_number_that_is_none_is_refused(value):
    """Python's JSON reads NaN, and a comparison with a limit never fails for it: training would."""
    prompt = {"1": {"class_type": "A", "inputs": {"x": value, "n": 1, "mode": "a"}}}
    validation = validate(prompt, JUNK_MAPPING)
    json.dumps(validation.node_errors, allow_nan=False)  # as the browser reads it
    (line,) = describe(validation, prompt)
    assert line.startswith(f"node 1 (A): input 'x': '{float(value)}' is no FLOAT; give it a value")


def test_a_reason_is_given_once_on_the_input_at_fault(make_class):
    """A check that looks at several inputs says which one it means; the others are not blamed."""
    types = {"required": {"a": ("INT", {}), "b": ("INT", {}), "c": ("INT", {})}}
    check = classmethod(lambda cls, a, b, c: "b: too small")
    sink = make_class(lambda a, b, c: (), types, (), OUTPUT_NODE=True, VALIDATE_INPUTS=check)
    found = validate({"1": {"class_type": "T", "inputs": {"a": 1, "b": 2, "c": 3}}}, {"T": sink})
    (error,) = found.node_errors["1"]["errors"]
    assert (error["details"], error["extra_info"]["input_name"]) == ("b - too small", "b")


def test_all_missing_classes_with_their_counts(mapping, prompt):
    """Whoever opens somebody else's workflow learns at once which packs it needs."""
    for number in range(12):
        prompt[f"x{number}"] = {"class_type": f"Gone{number % 3}", "inputs": {}}
    prompt["y"] = {"inputs": {}}
    prompt["z"] = {"class_type": "Once", "inputs": {}}
    found = validate(prompt, mapping)
    lines = describe(found, prompt)
    assert [(kind, len(ids)) for kind, ids in found.missing.items()] == [
        ("Gone0", 4), ("Gone1", 4), ("Gone2", 4), (None, 1), ("Once", 1),
    ]  # fmt: skip
    assert lines[0].startswith("4 nodes (x0, x3, x6, x9) are of the class 'Gone0', which no installed pack has; ")
    assert lines[3].startswith("node y (None): it has no class; ")
    assert lines[4].startswith("node z (Once): no installed pack has the class 'Once'; ")
    assert "Gone0 (4), Gone1 (4), Gone2 (4)" in found.error["details"]


def test_an_output_that_serves_only_what_cannot_run(make_class):
    """Samples that a trainer was to take are not made without the trainer; others are."""
    trainer = make_class(lambda samples, n: (), {"required": {"samples": ("S", {}), "n": ("INT", {"min": 1})}}, ())
    trainer.OUTPUT_NODE = True
    sampler = make_class(lambda: (1,), {}, ("S",), OUTPUT_NODE=True)
    prompt = {
        "1": {"class_type": "Sampler", "inputs": {}},
        "2": {"class_type": "Trainer", "inputs": {"samples": ["1", 0], "n": 0}},
        "3": {"class_type": "Sampler", "inputs": {}},
    }
    classes = {"Sampler": sampler, "Trainer": trainer}
    assert validate(prompt, classes).outputs == ["3"]
    prompt["2"]["inputs"]["n"] = 1
    assert validate(prompt, classes).outputs == ["1", "2", "3"]
    prompt["2"]["inputs"]["n"] = 0
    prompt["4"] = {"class_type": "Trainer", "inputs": {"samples": ["1", 0], "n": 1}}
    assert validate(prompt, classes).outputs == ["1", "3", "4"]
    del prompt["3"], prompt["4"]
    assert validate(prompt, classes).error["type"] == "prompt_outputs_failed_validation"


def test_thousands_of_outputs(make_class):
    """The work grows with the graph and not with its square: each input is looked at once, and lists are bounded."""
    looked = []

    def types(cls):
        looked.append(cls)
        return {"required": {"a": ("*", {}), "n": ("INT", {"min": 1})}}

    sink = make_class(lambda a, n: (1,), None, ("*",), OUTPUT_NODE=True)
    sink.INPUT_TYPES = classmethod(types)
    count = 3000
    prompt = {"0": {"class_type": "Sink", "inputs": {"a": 1, "n": 0}}}
    prompt |= {str(i): {"class_type": "Sink", "inputs": {"a": [str(i - 1), 0], "n": 0}} for i in range(1, count)}
    found = validate(prompt, {"Sink": sink})
    assert len(found.node_errors) == count
    assert len(looked) <= 3 * count
    dependents = [entry["dependent_outputs"] for entry in found.node_errors.values()]
    assert max(map(len, dependents)) <= 50
    assert dependents[0][0] == "0"
    assert "2999" in found.node_errors["2999"]["dependent_outputs"]
    assert "2999" in found.node_errors["2998"]["dependent_outputs"]
    assert "2998" not in found.node_errors["2999"]["dependent_outputs"]

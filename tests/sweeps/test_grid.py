"""What a grid of settings means."""

import pytest
from comfyui_rollout.sweeps.grid import axis, labels, variants


def test_every_combination_once_the_last_axis_fastest():
    """The order is the order of the runs' numbers, so it must not change."""
    found = variants(["Rollout.probability=0,0.5", "A.b=1,2,1"])
    assert found == [
        ["Rollout.probability=0", "A.b=1"],
        ["Rollout.probability=0", "A.b=2"],
        ["Rollout.probability=0.5", "A.b=1"],
        ["Rollout.probability=0.5", "A.b=2"],
    ]
    assert variants([]) == [[]]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A.b=1", ["1"]),
        ("A.b= x , y ", ["x", "y"]),
        ('A.b="a cat, a dog", a bird', ["a cat, a dog", "a bird"]),
        ('A.b=["a, b", "c"]', ["a, b", "c"]),
        ("A.b=[1, 2.5, true]", ["1", "2.5", "true"]),
        ("A.b=x=1,y=2", ["x=1", "y=2"]),
        ("A.b=,1", ["", "1"]),
    ],
)
def test_values_as_people_write_them(text, values):
    """Prompts hold commas and equals signs; an empty value is one, too."""
    assert axis(text) == [f"A.b={value}" for value in values]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["A.b"], "write NODE.INPUT=VALUE,VALUE"),
        (["=1"], "write NODE.INPUT=VALUE,VALUE"),
        (["A.b="], "write NODE.INPUT=VALUE,VALUE"),
        (["A.b=[]"], "write NODE.INPUT=VALUE,VALUE"),
        (["A.b=[1,"], "is no JSON list"),
        (["A.b=1", "A.b=2"], "named twice"),
        (["A.b=" + ",".join(map(str, range(40))), "C.d=" + ",".join(map(str, range(40)))], "1600 runs, and 1000"),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused(axes, message):
    """Before anything is made, in one line."""
    with pytest.raises(ValueError, match=message):
        variants(axes)


def test_labels_name_what_differs():
    """A legend is read at a glance: what all variants share stands nowhere."""
    assert labels([["a=1", "b=2"], ["a=1", "b=3"]]) == ["b=2", "b=3"]
    assert labels([["a=1"]]) == ["a=1"]
    assert labels([[]]) == ["as it is"]

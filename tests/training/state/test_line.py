"""The states that a run keeps, in their order, and which of them it goes on from."""

import json

import pytest
from comfyui_rollout.training.state import find_state, point_at, save_state, states_in
from comfyui_rollout.training.state.line import candidates_in, facts_in, free_name, line_of, name_states, planned_steps
from trained import go


def test_the_newest_states_are_kept(trainer, tmp_path):
    """So many, and each can be gone back to; then those of later steps are no more gone on from."""
    begun, whole = trainer(), trainer()
    losses = go(whole, 12)
    for _ in range(4):
        go(begun, 1)
        save_state(tmp_path, begun, keep=3)
    assert [path.name for path in states_in(tmp_path)] == [f"step_00000{step}.safetensors" for step in (2, 3, 4)]
    assert find_state(tmp_path).step == 4
    with pytest.raises(ValueError, match="no state after step 1; it has some after: 2, 3, 4"):
        find_state(tmp_path, 1)
    back = trainer(state=find_state(tmp_path, 2))
    assert go(back, 3) == losses[2:5]
    point_at(find_state(tmp_path, 2).path)
    assert find_state(tmp_path).step == 2
    save_state(tmp_path, trainer(state=find_state(tmp_path)), keep=3)
    assert [path.name for path in states_in(tmp_path)] == ["step_000002.safetensors", "step_000002-2.safetensors"]
    assert find_state(tmp_path).path.name == "step_000002-2.safetensors"


@pytest.fixture
def state(tmp_path):
    """The state folder of a run that came twice to step 10, and to a step of more digits than names are padded to."""
    folder = tmp_path / "state"
    folder.mkdir()
    for name in ("step_000010", "step_000010-2", "step_000002", "step_1000000", "step_9", "note"):
        (folder / f"{name}.safetensors").touch()
    return folder


ORDER = ["step_000002", "step_000010", "step_000010-2", "step_1000000"]


def stems(paths):
    return [path.stem for path in paths]


def test_states_are_in_the_order_in_which_they_were_made(state):
    """By number and not by letters; other files are none."""
    assert stems(states_in(state.parent)) == ORDER
    assert free_name(state, 10).name == "step_000010-3.safetensors"
    assert free_name(state, 11).name == "step_000011.safetensors"


def test_a_run_goes_on_from_what_its_pointer_names(state):
    """In that order; what was named and is gone is told, and what is not named is of a line that was left."""
    run = state.parent
    name_states([state / "step_000010-2.safetensors", state / "step_000002.safetensors"])
    assert (stems(candidates_in(run)[0]), candidates_in(run)[1]) == (["step_000010-2", "step_000002"], [])
    (state / "step_000010-2.safetensors").unlink()
    found, wrong = candidates_in(run)
    assert stems(found) == stems(line_of(run)) == ["step_000002"]
    assert wrong == ["step_000010-2.safetensors is missing"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (None, "state.json is missing"),
        ("{", "state.json"),
        ('{"states": []}', "state.json names no states"),
        ('{"states": ["../step_000010.safetensors"]}', "state.json names no states"),
        ('{"states": "step_000010.safetensors"}', "state.json names no states"),
        ('{"step": 10}', "its tensors are missing"),
    ],
)
def test_without_a_pointer_that_helps_all_states_are_tried(state, text, wrong):
    """The newest first, and it is said what was wrong."""
    if text is not None:
        (state / "state.json").write_text(text)
    found, (said,) = candidates_in(state.parent)
    assert stems(found) == ORDER[::-1]
    assert wrong in said


def test_a_new_run_has_nothing_wrong(tmp_path):
    """No state is no fault."""
    assert candidates_in(tmp_path) == ([], [])


def test_tensors_of_a_version_before_are_tried_first(state):
    """And are no part of the line, for they have no name of their own."""
    (state / "state.json").write_text('{"step": 12}')
    (state / "state.safetensors").touch()
    assert stems(candidates_in(state.parent)[0]) == ["state", *ORDER[::-1]]
    assert stems(line_of(state.parent)) == ORDER[::-1]


def test_going_back_to_a_state_that_no_pointer_names_keeps_those_before_it(state):
    """A line is the way to a state: what came later is left out of it."""
    name_states([state / "step_1000000.safetensors"])
    point_at(state / "step_000010-2.safetensors")
    assert json.loads((state / "state.json").read_text()) == {"states": ["step_000010-2.safetensors"]}
    (state / "state.json").unlink()
    point_at(state / "step_000010.safetensors")
    assert stems(line_of(state.parent)) == ["step_000010", "step_000002"]


@pytest.mark.parametrize(("text", "facts"), [('{"steps": 9}', {"steps": 9}), ("{", {}), ("[]", {}), (None, {})])
def test_a_damaged_run_json_is_no_reason_not_to_go_on(tmp_path, text, facts):
    """What it says is known, else nothing is."""
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert facts_in(tmp_path) == facts
    assert planned_steps(tmp_path) == facts.get("steps")

"""The states that a run keeps, in their order, and which of them it goes on from."""

import pytest
from comfyui_rollout.training.state import find_state, point_at, save_state, states_in
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

"""The state to go on from, also of a version before."""

import json

from comfyui_rollout.files.weights import read_metadata
from comfyui_rollout.training.state import find_state, save_state, states_in
from safetensors.torch import load_file, save_file
from trained import go, names


def as_before(folder):
    """The newest state as versions before kept it."""
    state = find_state(folder)
    facts = {k: v for k, v in json.loads(read_metadata(state.path)["facts"]).items() if k != "run"}
    (folder / "state" / "state.json").write_text(json.dumps(facts))
    save_file(load_file(state.path), folder / "state" / "state.safetensors")
    for path in states_in(folder):
        path.unlink()


def test_a_state_of_a_version_before_goes_on_to_the_bit(trainer, tmp_path):
    """People have such runs; the next state is of the new kind, and the old one goes when that is there."""
    whole, first = trainer(ema_decay=0.9), trainer(ema_decay=0.9)
    losses = go(whole, 12)
    go(first, 5)
    save_state(tmp_path, first)
    as_before(tmp_path)
    assert names(tmp_path / "state") == ["state.json", "state.safetensors"]
    second = trainer(state=find_state(tmp_path), ema_decay=0.9)
    assert go(second, 7) == losses[5:]
    save_state(tmp_path, second)
    assert names(tmp_path / "state") == ["state.json", "step_000012.safetensors"]
    assert find_state(tmp_path).step == 12


def test_a_state_of_before_goes_on_without_what_nodes_keep(counting, tmp_path):
    """States of earlier versions say nothing of it: it begins anew."""
    first, _ = counting()
    go(first, 2)
    save_state(tmp_path, first)
    as_before(tmp_path)
    path = tmp_path / "state" / "state.json"
    facts = json.loads(path.read_text())
    del facts["kept"]
    path.write_text(json.dumps(facts))
    second, made = counting(find_state(tmp_path))
    go(second, 1)
    assert made[-1].count == 1

"""Model folders: whole or not at all, to the bit, and what bad ones say."""

import json
import os

import pytest
import safetensors.torch
import torch
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.files import weights
from comfyui_rollout.models import saving
from comfyui_rollout.models.families import DiT
from comfyui_rollout.models.saving import CONFIG, WEIGHTS, check_model_folder, load_model, save_model
from comfyui_rollout.models.schedule_file import SCHEDULE_FILE, load_schedule


@pytest.fixture
def model(small_unet):
    return small_unet()


@pytest.fixture
def folder(model, tmp_path):
    """A model folder as a run leaves it."""
    return save_model(tmp_path / "model", model, FlowMatching(), {"workflow": "{}"})


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_checkpoints_are_those_of_the_highest_steps(tmp_path):
    """Long runs outgrow the six digits of the names, which then sort as text no more."""
    for step in (999_500, 1_000_000, 1_000_500):
        (tmp_path / f"step_{step:06d}").mkdir()
    saving.drop_oldest(tmp_path, 2)
    assert names(tmp_path) == ["step_1000000", "step_1000500"]


@pytest.mark.parametrize("stop", [OSError("disk full"), KeyboardInterrupt()])
def test_a_save_that_is_killed_leaves_nothing_half_written(model, tmp_path, monkeypatch, stop):
    """Killed in the middle of the weights: no folder where there was none."""

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise stop

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(type(stop)):
        save_model(tmp_path / "model", model, None, {})
    assert names(tmp_path) == []


def test_a_save_that_is_killed_keeps_the_model_before_it(folder, model, monkeypatch):
    """The checkpoint of an hour ago must survive the failing one."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(safetensors.torch, "save_file", lambda *data: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_model(folder, model, DDPM(), {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert names(folder.parent) == ["model"]


def test_a_model_folder_holds_what_it_says(folder):
    """Configuration, weights and the schedule they were trained with."""
    assert names(folder) == [CONFIG, WEIGHTS, SCHEDULE_FILE]
    assert json.loads((folder / CONFIG).read_text())["_class_name"] == "UNet2DModel"
    assert json.loads((folder / SCHEDULE_FILE).read_text())["type"] == "flow_matching"


def test_other_users_may_read_a_model_folder(folder):
    """The temporary folder's private mode must not stick to what is kept."""
    mask = os.umask(0)
    os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_saved_model_comes_back_to_the_bit(folder, model):
    """Training can go on where it stopped."""
    back = load_model(folder)
    assert type(back) is type(model)
    assert back.classes == model.classes
    state, expected = back.network.state_dict(), model.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_dit_comes_back_to_the_bit(tmp_path):
    """The other family, and without classes."""
    with global_seed(0):
        model = DiT.create(channels=1, size=8, classes=0, width=32, depth=1)
    back = load_model(save_model(tmp_path / "model", model, None, {}))
    state, expected = back.network.state_dict(), model.network.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert load_schedule(tmp_path / "model") is None


def test_diffusers_itself_loads_the_folder(folder, model):
    """What we save is no format of our own."""
    from diffusers import UNet2DModel

    state = UNet2DModel.from_pretrained(folder).state_dict()
    expected = model.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_missing_model_folder_is_named(tmp_path):
    """Before anything is loaded."""
    with pytest.raises(ValueError, match=r"^the model folder '.*nowhere' does not exist$"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_an_incomplete_model_folder_is_named(folder, name):
    """It says which file is missing."""
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"model' is not a model folder: it has no {name}$"):
        load_model(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_weights_cut_short_are_named(folder, share):
    """An unfinished copy, wherever it was cut, is found by a look at the header."""
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: int(len(whole) * share)])
    for look in (lambda: weights.check_weights(folder / WEIGHTS), lambda: load_model(folder)):
        with pytest.raises(ValueError, match=rf"{WEIGHTS} is damaged or cut short .*: copy it again$") as caught:
            look()
        one_line(caught)


CONFIGS = {
    "not json": ("{", "is not valid JSON"),
    "not text": (b"\xff\xfe\x00", "is not valid JSON"),
    "a list": ("[]", "holds no JSON object"),
    "another class": ('{"_class_name": "FluxTransformer2DModel"}', "describes a FluxTransformer2DModel, and we can"),
    "no class": ("{}", "describes a None, and we can train UNet2DModel, DiT"),
    "no size": ('{"_class_name": "UNet2DModel", "in_channels": 1}', "does not say sample_size"),
}


@pytest.mark.parametrize(("text", "words"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_bad_config_is_named(folder, text, words):
    """Whatever is wrong with it, the line names the file."""
    (folder / CONFIG).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words) as caught:
        check_model_folder(folder)
    assert str(folder / CONFIG) in one_line(caught)


def change_config(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def test_a_config_that_diffusers_refuses_is_named(folder):
    """diffusers' own complaints have many lines and no file name."""
    change_config(folder, block_out_channels=[8, 16, 32])
    with pytest.raises(ValueError, match=r"describes no working network: \w+") as caught:
        load_model(folder)
    assert str(folder / CONFIG) in one_line(caught)


@pytest.mark.parametrize(
    "change", [{"layers_per_block": 3}, {"block_out_channels": [16]}, {"num_class_embeds": None}],
    ids=["tensors are missing", "other shapes", "tensors too many"],
)  # fmt: skip
def test_weights_of_another_network_are_refused_in_one_line(folder, change):
    """torch's own message lists every tensor; ours names the file, how many, and one of them."""
    change_config(folder, **change)
    with pytest.raises(ValueError, match=r"does not fit its config.json: \d+ tensors .*, e\.g\. \w+") as caught:
        load_model(folder)
    assert str(folder / WEIGHTS) in one_line(caught)

"""Adapters saved with a run's model, and put back."""

import pytest
import torch
from comfyui_rollout.models import saving
from comfyui_rollout.models.adapters import saved
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from shaken import output, shake


@pytest.mark.parametrize("several", [False, True], ids=["one", "two"])
def test_adapters_come_back_to_the_bit(unet, several, tmp_path):
    """From the folder of a run, each from its own file."""

    def make():
        model = unet()
        add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q",)), seed=0)
        if several:
            add_adapter(model, AdapterSettings("b", "loha", rank=2, targets=("to_v",)), seed=1)
        return model

    model = make()
    for name in model.adapters:
        shake(model, name)
    folder = saving.save_model(tmp_path / "model", model, None, {"workflow": "{}"})
    assert len(list(folder.glob("*.safetensors"))) == len(model.adapters)
    back = saving.restore(make(), folder)
    assert torch.equal(output(back), output(model))


def test_an_adapter_of_another_run_is_refused(unet, tmp_path):
    """Another name, or other ranks."""
    model = unet()
    add_adapter(model, AdapterSettings("a", rank=2, targets=("to_q",)), seed=0)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    for name, rank, words in (
        ("b", 2, "there is no adapter 'b'"),
        ("a", 4, r"does not fit the adapter 'a': \d+ tensors"),
    ):
        other = unet()
        add_adapter(other, AdapterSettings(name, rank=rank, targets=("to_q",)), seed=0)
        with pytest.raises(ValueError, match=words):
            saving.restore(other, folder)


def test_what_was_saved_says_its_scale(unet, tmp_path):
    """rsLoRA too: the file's own settings are enough to use it."""
    model = unet()
    add_adapter(model, AdapterSettings("a", rank=4, alpha=6.0, rslora=True, targets=("to_q",)), seed=0)
    folder = saving.save_model(tmp_path / "model", model, None, {})
    (path,) = saved.adapter_files(folder).values()
    assert {part.scale for part in saved.read_saved(path).values()} == {3.0}

"""The device that is trained on."""

from types import SimpleNamespace

import pytest
from comfyui_rollout.hosts.device import choose_device


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, chosen):
    """``auto`` must never end on the processor beside an idle accelerator."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "mps:0"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    """A missing driver is one clear line, not a traceback from torch."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"^device '{name}' is not available here: choose auto or one of cpu$"):
        choose_device(name)


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "CPU"])
def test_a_name_that_torch_does_not_know_is_refused(name):
    """A typing error is one clear line, too."""
    with pytest.raises(ValueError, match=rf"^device '{name}' is none that torch knows: choose auto, cpu, cuda or mps$"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:1", "xpu", "npu:0", "cpu"])
def test_any_other_device_is_taken_as_given(monkeypatch, name):
    """torch runs on more than we can ask about, and its own plug-ins know best whether theirs is there."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if name.startswith("npu"):  # a plug-in's name for torch's spare device
        monkeypatch.setattr(torch, "device", lambda name: SimpleNamespace(type="npu"))
    assert choose_device(name) == name

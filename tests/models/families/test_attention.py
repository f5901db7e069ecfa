"""The choice of what computes attention: what is offered, for whom, and that it changes nothing but the way."""

import pytest
import torch
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.models import attention
from comfyui_rollout.models.attention import attend_by, check_attention, installed
from comfyui_rollout.models.families import PRETRAINED
from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

FAMILIES = sorted(PRETRAINED)


def test_what_is_not_installed_is_not_offered(monkeypatch):
    """A workflow that wants it says what is missing."""
    monkeypatch.setattr(attention, "find_spec", lambda library: None)
    assert installed() == ["default", "sdpa", "sdpa_flash"]
    with pytest.raises(ValueError, match=r"^attention: flash needs flash-attn, which is not installed: .* default$"):
        check_attention("flash")
    with pytest.raises(ValueError, match=r"^attention: 'best' is none of default, sdpa, sdpa_flash$"):
        check_attention("best")
    monkeypatch.setattr(attention, "find_spec", lambda library: library)
    assert installed() == ["default", *attention.KERNELS]
    check_attention("flash")


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_s_own_is_what_there_is_without_a_choice(batch_of, family):
    """To the bit, wherever it can be chosen; a family without a choice says so."""
    model, batch = batch_of(family)
    plain = ask(model, batch.x, batch.timestep, batch.conditioning)
    if model.attention == "fixed":
        with pytest.raises(ValueError, match=r"^attention: .* always computes with torch's \(sdpa\): choose default$"):
            check_attention("sdpa", type(model))
        return
    check_attention("sdpa", type(model))
    attend_by(model.network, "sdpa", "cpu")
    assert torch.equal(ask(model, batch.x, batch.timestep, batch.conditioning), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kernel_without_masks_is_refused_exactly_where_there_are_some(batch_of, family):
    """Asked of the network itself, with captions of several lengths: torch's flash kernel takes no mask."""
    model, batch = batch_of(family, captions=["a cat", "two dogs " * 60, ""])  # FLUX.3 pads up to 80
    plain = ask(model, batch.x, batch.timestep, batch.conditioning)
    attend_by(model.network, "sdpa_flash", "cpu")
    if model.attention == "masked":
        with pytest.raises(ValueError, match=r"mask.* is not supported"):
            ask(model, batch.x, batch.timestep, batch.conditioning)
        with pytest.raises(ValueError, match=r"leaves tokens out, which sdpa_flash cannot: choose .*sdpa, or default$"):
            check_attention("sdpa_flash", type(model))
        return
    torch.testing.assert_close(ask(model, batch.x, batch.timestep, batch.conditioning), plain, rtol=1e-4, atol=1e-5)
    if model.attention == "any":
        check_attention("sdpa_flash", type(model))
        chosen = {getattr(module, "processor", None) for module in model.network.modules()} - {None}
        assert {str(processor._attention_backend.value) for processor in chosen} == {"_native_flash"}


def test_other_networks_of_the_process_are_left_alone(batch_of):
    """diffusers keeps the last choice for all that make none; a second run, or a VAE, would compute by it too."""
    before = Registry._active_backend
    model, _ = batch_of("flux")
    attend_by(model.network, "sdpa_flash", "cpu")
    assert Registry._active_backend == before


def test_what_runs_on_cuda_only_is_one_line(batch_of):
    model, _ = batch_of("flux")
    with pytest.raises(ValueError, match=r"^attention: flash runs on CUDA, and not on cpu: choose default$"):
        attend_by(model.network, "flash", "cpu")

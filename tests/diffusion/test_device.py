"""How numbers come to the device."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.diffusion.device import moved


@pytest.mark.parametrize(("kind", "waits"), [("cuda", False), ("mps", True), ("cpu", True), ("xpu", True)])
def test_only_cuda_is_not_waited_for(kind, waits):
    """MPS would read temporaries of the CPU after they are freed, and the numbers would be silently wrong."""
    told = []
    values = SimpleNamespace(dtype=torch.float64, to=lambda *place, **how: told.append((place, how)))
    moved(values, torch.device(kind))
    moved(values, torch.device(kind), torch.float32)
    assert told == [
        ((torch.device(kind), dtype), {"non_blocking": not waits}) for dtype in (torch.float64, torch.float32)
    ]


def test_numbers_stay_the_same():
    """Whole numbers stay whole; another dtype only where it is asked for."""
    values, device = torch.tensor([3, 1]), torch.device("cpu")
    assert torch.equal(moved(values, device), values)
    assert moved(values, device).dtype == torch.int64
    assert torch.equal(moved(values > 1, device, torch.float32), torch.tensor([1.0, 0.0]))

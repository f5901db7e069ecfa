"""Gradient checkpointing that is exact where blocks change tensors in place."""

import pytest
import torch
from comfyui_rollout.models.recompute import blocks_of, recompute_blocks
from torch import nn
from torch.utils.checkpoint import checkpoint


class InPlace(nn.Module):
    """A block as networks written for inference have it: its results are added to its inputs in place."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x, other=None, *, options):
        x += self.first(self.norm(x)) * options["scale"]
        x += torch.tanh(self.second(x))
        if other is None:
            return x, 7
        other += x
        return x, other


class OutOfPlace(InPlace):
    """The same mathematics, which autograd follows by itself."""

    def forward(self, x, other=None, *, options):
        x = x + self.first(self.norm(x)) * options["scale"]
        x = x + torch.tanh(self.second(x))
        return (x, 7) if other is None else (x, other + x)


class Network(nn.Module):
    def __init__(self, block, width=6):
        super().__init__()
        self.into = nn.Linear(width, width)
        self.blocks = nn.ModuleList([block(width), block(width)])
        self.more = nn.Sequential(nn.ModuleList([block(width)]))
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        x, options = self.into(x), {"scale": 2.0}
        other = torch.zeros_like(x)
        for block in self.blocks:
            x, other = block(x, other, options=options)
            options["scale"] = 0.5  # what a block was given is what it is given again
        x, seven = self.more[0][0](x + other, options=options)
        assert seven == 7
        return self.out(x)


def made(block):
    torch.manual_seed(0)
    network = Network(block).double()
    return network, torch.randn(3, 6, dtype=torch.float64)


def gradients(network, x):
    network(x).sum().backward()
    return [weight.grad for weight in network.parameters()]


@pytest.fixture
def truth():
    return gradients(*made(OutOfPlace))


def test_gradients_are_those_of_the_plain_network(truth):
    """To rounding, of every weight inside and around the blocks."""
    network, x = made(InPlace)
    assert recompute_blocks(network) == 3
    for found, expected in zip(gradients(network, x), truth, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_torch_s_own_would_not_do(truth):
    """The test of the test: without ours there is an error, or gradients that are silently wrong."""
    network, x = made(InPlace)
    with pytest.raises(RuntimeError, match="inplace"):
        gradients(network, x)
    network, x = made(InPlace)
    for block in network.blocks:
        block.norm.register_forward_pre_hook(lambda _, given: (given[0].clone(),))
        forward = block.forward
        block.forward = lambda *args, forward=forward, **options: checkpoint(
            forward, *args, **options, use_reentrant=False
        )
    try:
        found = gradients(network, x)
    except RuntimeError:
        return
    assert not all(torch.allclose(a, b) for a, b in zip(found, truth, strict=True))


def test_frozen_blocks_before_the_first_adapter_have_no_gradient():
    """Nothing goes wrong where nothing inside a block is trained, nor what goes in."""
    network, x = made(InPlace)
    recompute_blocks(network)
    network.requires_grad_(False)
    network.blocks[1].first.requires_grad_(True)
    network(x).sum().backward()
    plain, _ = made(OutOfPlace)
    plain(x).sum().backward()
    torch.testing.assert_close(network.blocks[1].first.weight.grad, plain.blocks[1].first.weight.grad)
    assert network.blocks[0].first.weight.grad is None


def test_autocast_is_remembered():
    """What was computed in bf16 is computed in bf16 again."""
    network, x = made(InPlace)
    network.float()
    recompute_blocks(network)
    seen = []
    network.blocks[0].first.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(x.float()).sum()
    loss.backward()
    assert seen == [torch.bfloat16] * 2


def test_without_gradients_nothing_is_kept():
    """Rollouts and samples go straight through."""
    network, x = made(InPlace)
    recompute_blocks(network)
    with torch.no_grad():
        assert not network(x).requires_grad


def test_blocks_are_members_of_lists():
    """Not what is inside of a block, and not layers beside the lists."""
    network, _ = made(InPlace)
    assert list(blocks_of(network)) == [*network.blocks, network.more[0][0]]

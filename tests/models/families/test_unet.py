"""The small U-Net."""

import pytest
import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.models.families import FAMILIES, UNet


def test_the_output_has_the_shape_of_the_input(small_unet):
    """What goes in comes out, per item, and the timestep matters."""
    model = small_unet()
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    early, late = (model(x, torch.full((2,), level), {"label": labels}) for level in (10.0, 900.0))
    assert early.shape == x.shape
    assert not torch.equal(early, late)


def test_the_label_matters_to_a_conditional_network_only(small_unet):
    """A network without classes ignores the labels of the data set."""
    x, timestep = torch.randn(2, 1, 8, 8), torch.full((2,), 500.0)

    def differs(model):
        one, two = (model(x, timestep, {"label": torch.full((2,), label)}) for label in (1, 2))
        return not torch.equal(one, two)

    assert differs(small_unet(classes=10))
    assert not differs(small_unet(classes=0))


@pytest.mark.parametrize("classes", [0, 1, 10])
def test_what_is_known_of_the_network(small_unet, classes):
    """Samplers ask the model itself for classes and shape."""
    model = small_unet(classes, size=16)
    assert model.classes == classes
    assert model.latent_shape == (1, 16, 16)


def test_depth_makes_levels():
    """depth 3 on 8x8 images goes down to 2x2, and works."""
    model = UNet.create(channels=3, size=8, classes=0, width=8, depth=3)
    assert model.network.config.block_out_channels == (8, 16, 32)
    assert model(torch.randn(1, 3, 8, 8), torch.tensor([1.0]), {}).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("size", "width", "depth", "words"), [(8, 12, 1, "width 12 .* multiple of 8"), (12, 8, 4, "depth 4 .* size 12")]
)
def test_numbers_that_do_not_fit_are_refused_in_plain_words(size, width, depth, words):
    """Before diffusers fails somewhere inside."""
    with pytest.raises(ValueError, match=words):
        UNet.check(size=size, width=width, depth=depth)


@pytest.mark.parametrize(("size", "width", "depth"), [(8, 8, 1), (8, 16, 2), (12, 8, 3)])
def test_what_check_allows_can_be_made(size, width, depth):
    """The check is neither too strict nor too lax."""
    UNet.check(size=size, width=width, depth=depth)
    model = UNet.create(channels=1, size=size, classes=0, width=width, depth=depth)
    assert model(torch.randn(1, 1, size, size), torch.tensor([1.0]), {}).shape == (1, 1, size, size)


@pytest.mark.parametrize("family", ["unet", "dit"])
def test_weights_in_bf16_answer_latents_in_fp32(family):
    """Samples are made outside of autocast, also of a model that is trained in bf16."""
    with global_seed(0):
        model = FAMILIES[family].create(channels=1, size=8, classes=3, width=32, depth=2)
    x, timestep, told = torch.randn(2, 1, 8, 8), torch.tensor([300.0, 700.0]), {"label": torch.tensor([0, 2])}
    exact = ask(model, x, timestep, told)
    model.prepare_training(torch.bfloat16)
    model.network.eval()
    rough = ask(model, x, timestep, told)
    assert model.network.dtype == torch.bfloat16
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean() + 1e-3

"""The small diffusion transformer."""

import pytest
import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.models.families import DiT


def create(classes=10, size=8, depth=1):
    with global_seed(0):
        model = DiT.create(channels=1, size=size, classes=classes, width=32, depth=depth)
        # A new DiT puts out zeros whatever it is told; trained weights do not.
        for parameter in model.network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_the_output_has_the_shape_of_the_input():
    """Patches are put together again."""
    x = torch.randn(2, 1, 8, 8)
    assert create()(x, torch.full((2,), 500.0), {"label": torch.tensor([1, 2])}).shape == x.shape


def test_timestep_and_label_matter():
    """The transformer is told both."""
    model, x = create(), torch.randn(2, 1, 8, 8)
    told = [(10.0, 1), (900.0, 1), (10.0, 2)]
    with model.evaluating():
        outputs = [model(x, torch.full((2,), level), {"label": torch.full((2,), label)}) for level, label in told]
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_without_classes_it_needs_no_labels():
    """diffusers' DiT always wants a label; an unconditional one is told the same for all."""
    model = create(classes=0)
    assert model.classes == 0
    x, level = torch.randn(2, 1, 8, 8), torch.full((2,), 500.0)
    with model.evaluating():
        untold = model(x, level, {})
        assert untold.shape == (2, 1, 8, 8)
        # A data set of ten classes tells them, whether the model was to know them or not.
        assert torch.equal(model(x, level, {"label": torch.tensor([3, 9])}), untold)


def test_what_is_known_of_the_network():
    """Samplers ask the model itself for classes and shape."""
    model = create(classes=10, size=16)
    assert model.classes == 10
    assert model.latent_shape == (1, 16, 16)


@pytest.mark.parametrize(("size", "width", "words"), [(8, 40, "width 40 .* multiple of 32"), (9, 32, "size 9 .* even")])
def test_numbers_that_do_not_fit_are_refused_in_plain_words(size, width, words):
    """Before diffusers fails somewhere inside."""
    with pytest.raises(ValueError, match=words):
        DiT.check(size=size, width=width, depth=1)


def test_training_forgets_no_label():
    """diffusers drops labels in each layer by itself; here the same input gives the same output."""
    model, x = create(depth=3), torch.randn(64, 1, 8, 8)
    model.prepare_training()
    told = torch.full((64,), 500.0), {"label": torch.arange(64) % 10}
    assert torch.equal(model(x, *told), model(x, *told))

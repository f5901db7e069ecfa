"""The colours of latents."""

import torch
from comfyui_rollout.data.encodings.colours import fit, moments
from torch.nn import functional as F


def images(count=3, size=32):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bilinear") * 2 - 1


def linear_vae(image):
    """Four channels of latents, each a mix of the colours below it."""
    mixed = torch.tensor([[1.0, 0.5, 0.2], [0.3, -1.0, 0.4], [-0.2, 0.1, 2.0], [1.0, 1.0, 1.0]])
    return (
        torch.einsum("cr,rhw->chw", mixed, F.avg_pool2d(image, 8)) + torch.tensor([0.5, -1.0, 0.0, 2.0])[:, None, None]
    )


def test_the_colours_of_a_linear_autoencoder_are_found_exactly():
    """Seen through the map, its latents are the picture."""
    pictures = images()
    found = fit(sum(moments(linear_vae(picture), picture) for picture in pictures))
    assert found.shape == (5, 3)
    for picture in pictures:
        seen = torch.einsum("chw,cr->rhw", linear_vae(picture), found[:-1]) + found[-1][:, None, None]
        torch.testing.assert_close(seen, F.avg_pool2d(picture, 8) / 2 + 0.5, rtol=0, atol=1e-4)


def test_the_map_is_the_least_squares_fit():
    """For latents that tell the colours only roughly it is what a solver of all pairs at once would find."""
    pictures, generator = images(), torch.Generator().manual_seed(1)
    latents = [linear_vae(picture) + torch.randn(4, 4, 4, generator=generator) for picture in pictures]
    found = fit(sum(map(moments, latents, pictures)))
    left = torch.cat([value.flatten(1).T for value in latents]).double()
    right = torch.cat([F.avg_pool2d(picture, 8).flatten(1).T for picture in pictures]).double() / 2 + 0.5
    expected = torch.linalg.lstsq(torch.cat([left, torch.ones(len(left), 1)], 1), right).solution
    torch.testing.assert_close(found, expected.float())


def test_pictures_of_one_colour_have_a_map_too():
    """A single flat image leaves most of the map open; the smallest one that fits is finite and shows that colour."""
    picture = torch.full((3, 16, 16), 0.5)
    latents = torch.ones(4, 2, 2)
    found = fit(moments(latents, picture))
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(0), torch.full((3,), 0.75))

"""Data sets from ComfyUI's wires, with the encoders of Load Pretrained; tests/host has those of ComfyUI itself."""

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.nodes.data.native import texts_for


@pytest.fixture(scope="module")
def images():
    random = torch.Generator().manual_seed(0)
    return [torch.rand(2, 64, 64, 3, generator=random), torch.rand(1, 70, 140, 4, generator=random)]


@pytest.fixture
def dataset(build, tiny_pipeline, images):
    """``dataset(captions=[...])``: what Images to Dataset makes of three images."""
    _, _, pipeline = build(nodes.LoadPretrained, path=str(tiny_pipeline("sd")), storage="fp32")["result"]

    def make(**inputs):
        given = {"batch_size": 2, "repeats": 1, "caption_dropout": 0.0, "unique_id": "7", **inputs}
        listed = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
        returned = nodes.ImagesToDataset().build(images=images, pipeline=[pipeline], **listed)
        return returned["result"][0].inputs["dataset"], returned["ui"]["text"]

    return make


def draw(dataset, items):
    return dataset.batch(items, ItemGenerators(0, "test", 0, len(items)))


def test_batches_and_lists_are_one_data_set(dataset):
    """Each image once, in its own size cut to what the model takes, with its own caption."""
    made, text = dataset(captions=["a", "b", "c"])
    assert made.info.count == 3
    assert text == ["3 images of 2 sizes, 2 in a batch"]
    assert draw(made, [1, 0]).captions == ("b", "a")


def test_one_caption_is_for_all(dataset):
    made, _ = dataset(captions="a cat", trigger_word="ohwx")
    assert draw(made, [0, 1]).captions == ("ohwx, a cat", "ohwx, a cat")


def test_masks_are_in_the_size_of_latents(dataset):
    """One for all three would have to be of one size; one for each is."""
    masks = [torch.ones(2, 64, 64), torch.zeros(1, 70, 140)]
    made, _ = dataset(captions="x", masks=masks)
    assert draw(made, [0]).mask.shape[-2:] == draw(made, [0]).latents.shape[-2:]
    assert draw(made, [2]).mask.sum() == 0


def test_mirrored_images_are_added(dataset, images):
    """They are the mirrored pixels' latents, not mirrored latents."""
    made, _ = dataset(captions="x", flip=True)
    assert made.info.count == 6
    assert not torch.equal(draw(made, [3]).latents, draw(made, [0]).latents.flip(-1))


def test_captions_of_another_number_are_refused(dataset):
    with pytest.raises(ValueError, match="captions: there are 2 for 3 images; give one for all, or one for each"):
        dataset(captions=["a", "b"])


def test_latents_want_a_comfyui_model(build, tiny_pipeline):
    """Nothing else says how they are scaled."""
    _, _, pipeline = build(nodes.LoadPretrained, path=str(tiny_pipeline("sd")), storage="fp32")["result"]
    latents = [{"samples": torch.zeros(1, 4, 8, 8)}]
    with pytest.raises(ValueError, match="pipeline: these latents are of a ComfyUI model"):
        nodes.LatentsToDataset().build(["7"], latents, [[]], [pipeline], [1], [1])


def test_an_empty_list_is_refused(build, tiny_pipeline):
    """As a node gives that has found no image."""
    _, _, pipeline = build(nodes.LoadPretrained, path=str(tiny_pipeline("sd")), storage="fp32")["result"]
    with pytest.raises(ValueError, match="images: the list is empty; the node that it comes from has found nothing"):
        nodes.ImagesToDataset().build(["7"], [], [pipeline], [1], [1], [0.0])


def test_masks_that_show_nothing_are_refused(dataset):
    """Load Image gives a small black one for an image without transparency."""
    with pytest.raises(ValueError, match="masks: nothing in them is white, so nothing would be trained"):
        dataset(captions="x", masks=[torch.zeros(1, 64, 64)])


def test_a_mask_of_another_size_is_fitted(dataset):
    """It covers the image, whatever its size: the left half of it is the left half of the latents."""
    mask = torch.zeros(1, 10, 20)
    mask[:, :, :10] = 1
    made, _ = dataset(captions="x", masks=[mask])
    look = draw(made, [2]).mask[0, 0]
    half = look.shape[1] // 2
    assert look[:, :half].all()
    assert not look[:, half:].any()


@pytest.mark.parametrize(
    ("told", "counts", "expected"),
    [
        ([["a"]], [1, 2], "aaa"),  # one for all
        ([["a"], ["b"]], [1, 2], "abb"),  # one a batch
        ([["a", "b"], ["c"]], [2, 1], "abc"),  # a list a batch, as Resolution Bucket gives them
        ([["a"], ["b"], ["c"]], [3], "abc"),  # one a latent, in a row
    ],
)
def test_texts_go_to_their_latents(told, counts, expected):
    assert "".join(texts_for(told, counts)) == expected


def test_texts_of_another_number_are_refused():
    with pytest.raises(ValueError, match="conditioning: there are 2 for 3 images"):
        texts_for([["a"], ["b"]], [3])

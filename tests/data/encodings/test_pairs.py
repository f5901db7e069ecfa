"""Pairs for models that edit: each image with the picture from which it is made, and a caption read beside that."""

import numpy as np
import pytest
import torch
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.data.encodings.cache import Cache
from comfyui_rollout.data.encodings.encoders import PretrainedEncoders
from comfyui_rollout.data.encodings.encoding import Encoding
from comfyui_rollout.data.preflight import images_in_words
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.reading.cropping import to_latents, to_picture
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.data.reading.pictures import read_image
from comfyui_rollout.diffusion.rollouts.guidance import WITHOUT, unconditional
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.families.pretrained import CONTROL
from comfyui_rollout.models.families.qwen_image_edit import Processor
from comfyui_rollout.models.loading.load import load_parts
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from PIL import Image


@pytest.fixture
def pairs(tmp_path):
    """Two images with captions of unequal length, and the pictures from which they are made."""
    generator = np.random.default_rng(0)
    for place in ("made", "shown"):
        (tmp_path / place).mkdir()
        for name in ("a", "b"):
            pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(
                tmp_path / place / f"{name}.{'png' if place == 'made' else 'webp'}", lossless=1
            )
    (tmp_path / "made" / "a.txt").write_text("turn it blue")
    (tmp_path / "made" / "b.txt").write_text("make it much, much larger")
    return tmp_path


@pytest.fixture
def encoders(tiny_pipeline, tiny_pipelines, monkeypatch):
    """``encoders(family)`` of a tiny pipeline, which makes pictures small."""
    tiny_pipelines.small_pictures(monkeypatch)

    def make(family):
        source = Source(str(tiny_pipeline(family)), storage="fp32")
        return PretrainedEncoders(Pretrained(source, inspect(source)))

    return make


def folder_of(pairs, **options):
    return ImageFolder(pairs / "made", **{"size": 64, "control": pairs / "shown", **options})


def encode(pairs, encoders, dropout=0.0, **options):
    encoding = Encoding(folder_of(pairs, **options), encoders, CaptionSettings(dropout=dropout), Cache(pairs / "cache"))
    return encoding.run("cpu", lambda done, total: None), encoding


def both(dataset, seed=0):
    return dataset.batch([0, 1], ItemGenerators(seed, "data", 0, 2))


@pytest.mark.parametrize("family", ["qwen_image_edit_plus", "flux_kontext"])
def test_an_item_is_told_its_picture(pairs, encoders, family):
    """As the VAE sees it; and a caption is what the text encoder makes of both, where it sees the picture."""
    made = encoders(family)
    dataset, encoding = encode(pairs, made)
    batch, kind = both(dataset), PRETRAINED[family]
    source = made.pretrained.source
    parts = load_parts(source, made.pretrained.info, [*kind.text_parts, "vae"])
    captions = ["turn it blue", "make it much, much larger"]
    for item, (name, caption) in enumerate(zip("ab", captions, strict=True)):
        shown = to_latents(read_image(pairs / "shown" / f"{name}.webp"))
        with torch.no_grad():
            wanted = kind.encode_images(parts.vae, shown[None])[0]
        torch.testing.assert_close(batch.conditioning[CONTROL][item], wanted, atol=1e-4, rtol=1e-4)
        told = kind.encode_captions(parts, [caption], pictures=[to_picture(shown)])["text"][0]
        torch.testing.assert_close(batch.conditioning["text"][item, : len(told)], told, atol=1e-5, rtol=1e-5)
    assert encoding.run("cpu", lambda done, total: None) is not None
    assert encode(pairs, made)[1].missing == 0


def test_an_item_without_its_caption_keeps_its_picture(pairs, encoders):
    """In guidance and where a caption is dropped: the empty caption is read beside the very picture, and padded."""
    dataset, _ = encode(pairs, encoders("qwen_image_edit"))
    told = both(dataset).conditioning
    without = unconditional(told, dataset.no_caption())
    assert torch.equal(without[CONTROL], told[CONTROL])
    assert without["text"].shape == told["text"].shape
    assert (without["mask"].sum(1) < told["mask"].sum(1)).all()
    assert not torch.equal(without["text"][0], without["text"][1])
    dropped, _ = encode(pairs, encoders("qwen_image_edit"), dropout=1.0)
    bare = both(dropped).conditioning
    assert torch.equal(bare["text"], bare[WITHOUT + "text"])
    length = bare["text"].shape[1]
    assert torch.equal(without["text"][:, :length], bare["text"])


def test_both_pictures_are_mirrored_together(pairs, encoders):
    """An edit stays one when the image is flipped."""
    dataset, _ = encode(pairs, encoders("flux_kontext"), flip=True)
    for entry in dataset.entries:
        plain, mirrored = (view.control.pixels(folder_of(pairs).pixels) for view in entry.views)
        assert torch.equal(plain.flip(-1), mirrored)
        assert len({view.control.key for view in entry.views} | {view.key for view in entry.views}) == 4


def test_a_missing_or_damaged_picture_is_named(pairs, one_line):
    """Before anything is encoded, in one line that says where it should be."""
    (pairs / "shown" / "b.webp").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^control: cannot read .*b\.webp") as caught:
        folder_of(pairs)
    one_line(caught)
    (pairs / "shown" / "b.webp").unlink()
    with pytest.raises(
        ValueError, match=r"^control: .*shown' has no picture of the same name for b\.png; add"
    ) as caught:
        folder_of(pairs)
    one_line(caught)
    with pytest.raises(ValueError, match=r"^control: the folder .* does not exist"):
        folder_of(pairs, control=pairs / "nowhere")


def test_pictures_to_change_may_lie_below_the_images(pairs):
    """They are no images of their own then."""
    (pairs / "shown").rename(pairs / "made" / "before")
    images = folder_of(pairs, control=pairs / "made" / "before")
    assert [item.path.name for item in images.items] == ["a.png", "b.png"]
    assert "control: 2 pairs" in images_in_words(images, 1, True)


def test_other_proportions_are_told(pairs):
    """Such a pair is cut differently, and the edit does not fit."""
    Image.new("RGB", (96, 64)).save(pairs / "shown" / "a.webp")
    assert "control: other proportions than their image, and cut differently: a.png" in images_in_words(
        folder_of(pairs), 1, True
    )


@pytest.mark.parametrize(
    ("family", "control", "line"),
    [
        ("sd", True, "control: .*shown none to change: clear it"),
        ("qwen_image_edit", False, "control: .*name the folder"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(pairs, encoders, family, control, line):
    options = {} if control else {"control": None}
    with pytest.raises(ValueError, match=line):
        encode(pairs, encoders(family), **options)


def test_the_processor_reads_as_transformers_does(tiny_pipeline):
    """Tokens, masks and pixels of several pictures of several sizes; theirs has a part for videos, not asked here."""
    from transformers import Qwen2_5_VLProcessor

    ours = Processor(tiny_pipeline("qwen_image_edit") / "processor")
    theirs = Qwen2_5_VLProcessor.__new__(Qwen2_5_VLProcessor)
    theirs.tokenizer, theirs.image_processor, theirs.chat_template = ours.tokenizer, ours.pictures, None
    for name, token in (("image_token", "<|image_pad|>"), ("video_token", "<|video_pad|>")):
        setattr(theirs, name, token)
        setattr(theirs, f"{name}_id", ours.tokenizer.convert_tokens_to_ids(token))
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    given = {
        "text": [f"one {place}", f"Picture 1: {place} and {place} longer"],
        "images": [Image.new("RGB", size, "blue") for size in ((70, 100), (56, 56), (200, 60))],
        "padding": True,
        "return_tensors": "pt",
    }
    read, wanted = ours(**given), theirs(**given)
    assert read.keys() >= {"input_ids", "attention_mask", "pixel_values", "image_grid_thw"}
    assert all(torch.equal(value, wanted[name]) for name, value in read.items())

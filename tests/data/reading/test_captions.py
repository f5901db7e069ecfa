"""From the text beside an image to the texts that are encoded."""

import pytest
from comfyui_rollout.data.reading.captions import CaptionSettings

TAGS = "cat, red, sleeping, indoors, photo"


def test_by_default_a_caption_stays_as_it_is():
    """Nothing is added, nothing shuffled."""
    assert CaptionSettings().variants_of(TAGS) == (TAGS,)
    assert CaptionSettings().variants_of("") == ("",)


@pytest.mark.parametrize(
    ("caption", "result"),
    [
        ("a red cat", "sks, a red cat"),
        ("", "sks"),
        ("a photo of [trigger], red", "a photo of sks, red"),
        ("a photo of sks", "a photo of sks"),
        ("tasks of a day", "sks, tasks of a day"),
        ("photo of sks, red", "photo of sks, red"),
    ],
)
def test_the_trigger_word_is_in_every_caption_once(caption, result):
    """In front, in its place, or where it is already."""
    assert CaptionSettings(" sks ").variants_of(caption) == (result,)


def test_without_a_trigger_word_its_place_is_empty():
    """The model must never read the placeholder."""
    assert CaptionSettings().variants_of("[trigger]cat") == ("cat",)


def test_shuffled_tags_are_the_same_tags():
    """Several orders, the written one first, the trigger word always in front; the same ones in every run."""
    settings = CaptionSettings("sks", shuffle_tags=True, variants=6)
    variants = settings.variants_of(TAGS)
    assert variants[0] == f"sks, {TAGS}"
    assert len(set(variants)) == len(variants) > 3
    assert {tuple(sorted(text.split(", "))) for text in variants} == {tuple(sorted(f"sks, {TAGS}".split(", ")))}
    assert all(text.startswith("sks, ") for text in variants)
    assert settings.variants_of(TAGS) == variants


def test_equal_orders_are_encoded_once():
    """Two tags have two orders only, and a sentence has one."""
    settings = CaptionSettings(shuffle_tags=True, variants=30)
    assert sorted(settings.variants_of("a, b")) == ["a, b", "b, a"]
    assert settings.variants_of("a red cat") == ("a red cat",)


@pytest.mark.parametrize("caption", ["sks, dog, red, grass", "dog, red, sks, grass", "[trigger], dog, red, grass"])
def test_a_trigger_among_the_tags_comes_first(caption):
    """Wherever it was written: what is to be learnt by it must not wander."""
    settings = CaptionSettings("sks", shuffle_tags=True, variants=30)
    written, *others = settings.variants_of(caption)
    assert written == caption.replace("[trigger]", "sks")
    assert len(others) > 3
    assert all(text.startswith("sks, ") and text.count("sks") == 1 for text in others)


def test_a_trigger_inside_the_first_tag_keeps_that_tag_there():
    """As in "a photo of sks dog, red, grass"."""
    settings = CaptionSettings("sks", shuffle_tags=True, variants=8)
    variants = settings.variants_of("a photo of sks dog, red, grass, sunny")
    assert len(variants) > 3
    assert all(text.startswith("a photo of sks dog, ") for text in variants)


def test_kept_tags_stay_in_front():
    """As many as asked for, in their order; the trigger word does not count."""
    variants = CaptionSettings("sks", shuffle_tags=True, variants=20, keep_tags=2).variants_of("a, b, c, d, e")
    assert len(variants) > 4
    assert all(text.startswith("sks, a, b, ") for text in variants)
    assert CaptionSettings(shuffle_tags=True, keep_tags=9).variants_of("a, b, c") == ("a, b, c",)

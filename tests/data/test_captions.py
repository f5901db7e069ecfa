"""From the text beside an image to the texts that are encoded."""

import pytest
from comfyui_rollout.data.captions import CaptionSettings, caption_file, read_caption

TAGS = "cat, red, sleeping, indoors, photo"


def test_captions_lie_beside_the_image(tmp_path):
    """.txt first, .caption else, nothing where there is neither; surrounding space and bad bytes do no harm."""
    (tmp_path / "a.txt").write_text("  a red cat\n")
    (tmp_path / "a.caption").write_text("not this")
    (tmp_path / "b.caption").write_text("a blue dog")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    files = [caption_file(tmp_path / f"{name}.png") for name in "abcd"]
    assert [read_caption(file) for file in files if file] == ["a red cat", "a blue dog", "caf\ufffd"]
    assert files[3] is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_of_windows_editors_are_read(tmp_path, encoding):
    """Without the byte order mark, which a tokenizer takes for a letter."""
    (tmp_path / "a.txt").write_text("ein süßer Hund\n", encoding=encoding)
    assert read_caption(tmp_path / "a.txt") == "ein süßer Hund"


def test_what_is_no_text_is_named(tmp_path):
    """UTF-16 that does not say so would be trained as letters with zeros between."""
    (tmp_path / "a.txt").write_text("a cat", encoding="utf-16-le")
    with pytest.raises(ValueError, match=r"the caption .*a\.txt holds zero bytes, .* save it as UTF-8"):
        read_caption(tmp_path / "a.txt")


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

"""From files to captions."""

import json

import pytest
from comfyui_rollout.data.reading.caption_files import CaptionFinder
from comfyui_rollout.data.reading.folder import listing_of


@pytest.fixture
def captions(tmp_path):
    """``captions({"a.png": b"", "a.txt": "a cat"})``: what is found for each picture, by its stem."""

    def find(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        finder = CaptionFinder(listing_of(tmp_path))
        found = {picture.stem: finder(picture) for picture in finder.listing.pictures}
        return {stem: caption and caption.text for stem, caption in found.items()}, finder

    return find


def test_captions_lie_beside_the_picture(captions):
    """.txt first, .caption else, nothing where there is neither; surrounding space does no harm."""
    files = {"a.png": b"", "a.txt": "  a red cat\n", "a.caption": "not this", "b.png": b"", "b.caption": "a blue dog"}
    found, _ = captions({**files, "c.png": b"", "d.png": b"", "d.txt": " \n"})
    assert found == {"a": "a red cat", "b": "a blue dog", "c": None, "d": ""}


@pytest.mark.parametrize(
    ("value", "caption"),
    [
        ({"caption": "a cat"}, "a cat"),
        ({"text": "first", "caption": "second"}, "first"),
        ({"prompt": " a dog "}, "a dog"),
        ({"tags": ["cat", "red"]}, "cat, red"),
        ("just a text", "just a text"),
        ({"width": 512}, None),
        (["a"], None),
    ],
)
def test_a_json_file_of_the_same_name(captions, value, caption):
    """As downloaders of galleries write them; one that holds no caption is remembered, to be said."""
    found, finder = captions({"a.png": b"", "a.json": json.dumps(value)})
    assert found == {"a": caption}
    assert [path.name for path in finder.without] == (["a.json"] if caption is None else [])


def test_metadata_of_many_pictures(captions):
    """Hugging Face's image folders: names are relative to the table; a text beside the picture is stronger."""
    rows = [{"file_name": name, "text": f"caption of {name}"} for name in ("a.png", "b.png", "sub/c.png", "gone.png")]
    files = {"x/a.png": b"", "x/b.png": b"", "x/b.txt": "its own", "x/sub/c.png": b""}
    found, finder = captions({**files, "x/metadata.jsonl": "\n".join(map(json.dumps, rows)) + "\n\n"})
    assert found == {"a": "caption of a.png", "b": "its own", "c": "caption of sub/c.png"}
    assert finder.absent == ["metadata.jsonl: gone.png"]


def test_metadata_as_a_table(captions):
    """The same as CSV, with commas in the text."""
    found, _ = captions({"a.png": b"", "metadata.csv": 'file_name,text\na.png,"a cat, red"\n'})
    assert found == {"a": "a cat, red"}


@pytest.mark.parametrize(
    "table", ['file_name,text\na.png,"a cat\nb.png,"a dog"\n', 'file_name,text\na.png,"a\nb.png,b\n']
)
def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(captions, table):
    """CSV goes on to the next mark, over lines: the rows behind it would be a part of a caption."""
    with pytest.raises(ValueError, match=r"metadata\.csv: .*quotation mark is not closed"):
        captions({"a.png": b"", "b.png": b"", "c.png": b"", "metadata.csv": table})


def test_a_caption_of_several_lines_in_a_table(captions):
    """Lines are a caption's own right, where its marks are closed."""
    found, _ = captions(
        {"a.png": b"", "b.png": b"", "metadata.csv": 'file_name,text\na.png,"a cat,\nasleep"\nb.png,dog\n'}
    )
    assert found == {"a": "a cat,\nasleep", "b": "dog"}


def test_of_a_picture_named_twice_the_later_caption_is_taken_and_said(captions):
    """The same caption again is nothing to say."""
    rows = [{"file_name": "a.png", "text": "one"}, {"file_name": "b.png", "text": "same"}] * 2
    rows[2] = {"file_name": "a.png", "text": "two"}
    found, finder = captions({"a.png": b"", "b.png": b"", "metadata.jsonl": "\n".join(map(json.dumps, rows))})
    assert found == {"a": "two", "b": "same"}
    assert finder.repeated == ["metadata.jsonl: a.png"]


@pytest.mark.parametrize(
    ("line", "words"),
    [("{", r"metadata\.jsonl, line 2: is not a JSON object"), ('{"text": "x"}', "line 2: there is no file_name")],
)
def test_a_broken_table_is_named_with_its_line(captions, line, words):
    """Not skipped: the captions behind it would be lost in silence."""
    with pytest.raises(ValueError, match=words):
        captions({"a.png": b"", "metadata.jsonl": '{"file_name": "a.png", "text": "a"}\n' + line})

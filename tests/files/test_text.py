"""Text in the encodings that people's editors write: decoded rightly, or refused, and never spoilt."""

import pytest
from comfyui_rollout.files.text import LARGEST, decoded, read_text

GERMAN, RUSSIAN, POLISH = "ein süßer Hund auf dem Sofa", "рыжая собака лежит на траве", "rudy pies leży w śniegu"


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        ("the dog\u2019s bed", "cp1252", "Windows-1252"),
        ("Loïc rides a bike", "latin-1", "Windows-1252"),
        ("a \u201cred\u201d caf\xe9 \u2013 5\xa0\u20ac", "cp1252", "Windows-1252"),
        (GERMAN, "latin-1", "Windows-1252"),
        (GERMAN, "utf-8-sig", "utf-8"),
        (GERMAN, "utf-16", "utf-16"),
        (GERMAN, "utf-32", "utf-32"),
        (GERMAN, "utf-16-le", "utf-16-le"),
        (GERMAN, "utf-16-be", "utf-16-be"),
        (RUSSIAN, "utf-8", "utf-8"),
        (RUSSIAN, "utf-16", "utf-16"),
        ("", "utf-8", "utf-8"),
    ],
)
def test_what_can_be_told_is_decoded(text, encoding, name):
    """Every letter, and the name of what it was taken for."""
    assert decoded(text.encode(encoding)) == (text, name)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (RUSSIAN.encode("cp1251"), "neither UTF-8 nor surely"),
        (RUSSIAN.encode("koi8-r"), "neither UTF-8 nor surely"),
        ("Łódź nocą, łódka".encode("cp1250"), "neither UTF-8 nor surely"),
        (POLISH.encode("iso8859-2"), "neither UTF-8 nor surely"),
        ("赤い犬".encode("shift_jis"), "neither UTF-8 nor surely"),
        ("a photo of 猫".encode("shift_jis"), "neither UTF-8 nor surely"),
        ("红色的狗".encode("gbk"), "neither UTF-8 nor surely"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "holds zero bytes"),
        (b"a cat\0", "holds zero bytes"),
        (b"\xff\xfea\0b", "says that it is UTF-16, and is not"),
    ],
)
def test_what_cannot_be_told_is_refused(data, words):
    """Russian read as French would be trained as nonsense."""
    with pytest.raises(ValueError, match=words):
        decoded(data)


def test_a_refused_file_is_named(tmp_path):
    """With what to do."""
    path = tmp_path / "a.txt"
    path.write_bytes(RUSSIAN.encode("cp1251"))
    with pytest.raises(ValueError, match=r"a\.txt is neither UTF-8 nor surely Western European text: save it as UTF-8"):
        read_text(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """A system's own words name no file where reading fails behind opening."""
    with pytest.raises(ValueError, match=r"cannot read .*a\.txt: No such file"):
        read_text(tmp_path / "a.txt")


def test_a_huge_file_is_no_caption(tmp_path):
    """A video that was renamed must not be read into memory."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * (LARGEST + 1))
    with pytest.raises(ValueError, match=r"a\.txt is larger than 1 MiB, so it is no caption"):
        read_text(path)

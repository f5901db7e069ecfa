"""How text is decoded: by its byte order mark, as UTF-8, or as what Windows writes in Western Europe.

Only what can be told is decoded; anything else is refused, so that no letter is ever replaced in silence.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import NamedTuple

MARKS = (  # the longer mark first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = "Windows-1252"
LARGEST = 1 << 20
"""Bytes of a text; what is longer is no caption."""

LETTERS = "\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e"
SIGNS = (
    "\u00a0\u00a1\u00a2\u00a3\u00a5\u00a7\u00a9\u00aa\u00ab\u00ae\u00b0\u00b1\u00b2\u00b3\u00b4\u00b7\u00b9\u00ba"
    "\u00bb\u00bc\u00bd\u00be\u00bf\u00d7\u20ac\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2022\u2026\u2039"
    "\u203a\u2122"
)
INSIDE = "\u00a1-\u00a3\u00a5\u00a7\u00a9-\u00ab\u00ae\u00b1-\u00b3\u00b9-\u00bf\u20ac\u2039\u203a\u201a\u201e"
UNLIKELY = re.compile(
    rf"[^\x09-\x0d\x20-\x7e{LETTERS}{SIGNS}]"  # neither ASCII nor Western
    rf"|[{LETTERS}]{{3}}"  # another alphabet, letter by letter
    rf"|[A-Za-z{LETTERS}][{INSIDE}](?=[a-z{LETTERS}])"  # a sign inside a word
    r"|[a-z][\u00c0-\u00d6\u00d8-\u00de\u0152\u0160\u0178\u017d]"  # a capital behind a small letter
    rf"|(?:^|\s)[\u201d\u00b4\u00b9\u00b2\u00b3](?=[A-Za-z{LETTERS}])"  # a closing sign in front of a word
)


class Text(NamedTuple):
    """What a file says."""

    text: str
    encoding: str


def has_half_letters(text: str) -> bool:
    """Whether halves of surrogate pairs are in it, as where a text was cut amid an emoji: no encoder reads them."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def read_text(path: Path) -> Text:
    """The text in a file; raises ValueError, naming it and what to do, where no encoding can be told."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path} is larger than {LARGEST >> 20} MiB, so it is no caption: move it away")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    try:
        return decoded(data)
    except ValueError as error:
        raise ValueError(f"{path} {error}: save it as UTF-8") from None


def decoded(data: bytes) -> Text:
    """Bytes as text; raises ValueError, with the reason, where no encoding can be told."""
    for mark, name in MARKS:
        if data.startswith(mark):
            return Text(strictly(data, name), name.removesuffix("-sig"))
    if b"\0" in data:
        return without_mark(data)
    try:
        return Text(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return Text(western(data), WESTERN)


def strictly(data: bytes, name: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError:
        raise ValueError(f"says that it is {name.removesuffix('-sig').upper()}, and is not") from None


def without_mark(data: bytes) -> Text:
    """UTF-16 without its mark: every other byte of Latin letters is zero."""
    halves = len(data) // 2
    for name, zeros, others in (("utf-16-le", data[1::2], data[::2]), ("utf-16-be", data[::2], data[1::2])):
        if len(data) % 2 == 0 and zeros.count(0) > 0.8 * halves and not others.count(0):
            return Text(strictly(data, name), name)
    raise ValueError("holds zero bytes, so it is no text")


def western(data: bytes) -> str:
    """Windows-1252, of which Latin-1 is a part, where all of it looks like a Western language."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    foreign, plain = len(re.findall(f"[{LETTERS}]", text)), len(re.findall("[A-Za-z]", text))
    if not plain or foreign > plain or UNLIKELY.search(text):
        raise ValueError("is neither UTF-8 nor surely Western European text")
    return text

"""The caption of each picture of a folder: from the text beside it, or from a table of many."""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ...files.text import Text, has_half_letters, read_text
from .folder import Listing, key_of, printable

FIELDS = ("text", "caption", "prompt", "description", "tags")
"""Under which of these names JSON files and tables keep a caption; the first that is there."""


@dataclass(frozen=True)
class Caption:
    """What was found for one picture."""

    text: str
    source: Path | None = None
    """The file that it is in; None where no file has one."""
    encoding: str = "utf-8"


class CaptionFinder:
    """``find(picture)``: the text beside it, else its row in a table; None where there is neither.

    Raises ValueError, naming the file, where a text cannot be decoded or a table cannot be read.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.rows: dict[Path, Caption] = {}
        self.absent: list[str] = []
        """Names in tables that no picture has."""
        self.repeated: list[str] = []
        """Names in tables whose later row has another caption, which is taken."""
        self.without: list[Path] = []
        """JSON files beside pictures in which there is no caption."""
        pictures = {key_of(path) for path in listing.pictures}
        for table in listing.tables:
            for name, caption in captions_in(table):
                key = key_of(table.parent / name)
                if key not in pictures:
                    self.absent.append(f"{table.name}: {name}")
                    continue
                if other := swallowed(caption.text, table, pictures):
                    raise ValueError(
                        f"{table}: the caption of {printable(name)} runs on into the row of {printable(other)}: "
                        "a quotation mark is not closed; close it, or write two for one that is meant"
                    )
                if self.rows.get(key, caption).text != caption.text:
                    self.repeated.append(f"{table.name}: {name}")
                self.rows[key] = caption

    def __call__(self, picture: Path) -> Caption | None:
        if text := self.listing.captions.get(picture):
            if text.suffix.lower() != ".json":
                found = read_text(text)
                return Caption(found.text.strip(), text, found.encoding)
            if (caption := caption_of_json(text)) is not None:
                return caption
            self.without.append(text)
        return self.rows.get(key_of(picture))


def swallowed(caption: str, table: Path, pictures: Container[Path]) -> str | None:
    """The picture whose row an open quotation mark has made a part of this caption; None where there is none."""
    if table.suffix.lower() != ".csv":
        return None
    cells = (cell.strip(' "') for line in caption.splitlines()[1:] for cell in line.split(","))
    return next((cell for cell in cells if cell and key_of(table.parent / cell) in pictures), None)


def caption_of_json(path: Path) -> Caption | None:
    """The caption in a picture's JSON file, as downloaders of galleries write them; None where there is none."""
    text, encoding = read_text(path)
    try:
        found = caption_in_json(text)
    except ValueError as error:
        raise ValueError(f"{path} {error}: write it anew") from None
    return None if found is None else Caption(found, path, encoding)


def spelt_out(caption: str) -> str:
    """The caption without spaces around it; raises ValueError, with the reason, where half a letter is in it.

    JSON's escapes can say so. Programs write it that cut a text amid an emoji, and no encoder can read it.
    """
    if has_half_letters(caption):
        raise ValueError("holds a caption that was cut in the middle of a letter")
    return caption.strip()


def caption_in_json(text: str) -> str | None:
    """The caption in what a JSON file says; None where there is none. Raises ValueError as :func:`spelt_out`."""
    try:
        value = json.loads(text)
    except (RecursionError, ValueError):
        return None
    found = value if isinstance(value, str) else caption_in(value) if isinstance(value, dict) else None
    return None if found is None else spelt_out(found)


def caption_in(row: Mapping[str, Any]) -> str | None:
    """A caption among named values: a text, or a list of tags."""
    for name in FIELDS:
        value = row.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
            return ", ".join(value)
    return None


def captions_in(table: Path) -> Iterator[tuple[str, Caption]]:
    """Names of files, beside the table or below it, and their captions; a row without a caption is passed over."""
    text = read_text(table)
    for place, row in rows_of(table, text):
        name = row.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{table}, line {place}: there is no file_name: name the picture that it is of")
        if (caption := caption_in(row)) is not None:
            try:
                yield name.strip(), Caption(spelt_out(caption), table, text.encoding)
            except ValueError as error:
                raise ValueError(f"{table} {error}: write that of {printable(name)} anew") from None


def rows_of(table: Path, found: Text) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a table with their lines."""
    if table.suffix.lower() == ".csv":
        reader = csv.DictReader(StringIO(found.text, newline=None))  # a Mac's line ends, too
        try:
            yield from enumerate(reader, 2)
        except csv.Error as error:
            raise ValueError(f"{table}, line {reader.line_num + 1}: is no row of a table: {error}") from None
        return
    for place, line in enumerate(found.text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (RecursionError, ValueError):
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{table}, line {place}: is not a JSON object")
        yield place, row

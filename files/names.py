"""The one rule for names of files, folders and runs: what is plain on one system must be plain on all of them.

Windows reads ``CON``, ``nul.txt`` and ``x:y`` as devices and streams, and drops dots and spaces at the end; a newline
or NUL breaks whatever prints or opens the name. Run folders are copied between systems, so each refuses what any does.
"""

from __future__ import annotations

import re
import unicodedata

UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, halves of surrogate pairs, line and paragraph separators."""

TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn round what stands behind a name in a line, and make ``gpj.exe`` look like ``exe.jpg``."""

DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\..*)?", re.IGNORECASE)
SEPARATORS = "/\\:"
UNWRITABLE = '<>"|?*'
"""What Windows cannot write, though a name that holds them leads nowhere else."""

LONGEST_PART = 255
"""Bytes of one part of a path in the common file systems."""
LONGEST_NAME = 200
"""Bytes of a new name, so that a number, an ending and the name of an unfinished file still fit behind it."""


def trouble_with_part(part: str) -> str | None:
    """Why a name that somebody wrote is not one plain part of a path, on any system; None if it is one."""
    if part in ("", ".", ".."):
        return "is no name"
    if any(unicodedata.category(character) in UNPRINTABLE for character in part):
        return "holds a line break or another character that cannot be printed"
    found = next((character for character in part if character in SEPARATORS), None)
    if found is not None:
        return f"holds {found!r}"
    if part.endswith((".", " ")):
        return "ends with a dot or a space, which some systems drop"
    if DEVICES.fullmatch(part):
        return "is a device on Windows"
    return _too_long(part, LONGEST_PART)


def trouble_with_name(name: str) -> str | None:
    """Why a file or folder should not get this name; None if it may. Stricter than what may be read."""
    if not name.strip():
        return "is empty"
    found = next((character for character in name if character in UNWRITABLE), None)
    if found is not None:
        return f"holds {found!r}, which Windows cannot write"
    if TURNING.search(name):
        return "holds a character that turns the letters behind it round"
    return trouble_with_part(name) or _too_long(name, LONGEST_NAME)


def _too_long(name: str, most: int) -> str | None:
    size = len(name.encode())
    return f"is {size} bytes long, and {most} is the limit" if size > most else None

"""Folders of pictures that lie outside of the studio's own: those that a workflow names, or the command line allows.

Whoever may queue a workflow can have such a folder read already, so nothing is opened here that was closed; and a
request never carries a path, only the key of a folder that is known already.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...graph import WorkflowError, to_prompt

KEY = "folder:"
"""Begins the name of such a folder; a colon is in no name of a data set."""
INPUT = "folder"
"""The input by which a node is told where pictures are."""
MOST_WORKFLOWS = 500
LARGEST_WORKFLOW = 8 * 1024**2  # bytes

Definitions = Callable[[], Mapping[str, Any]]
"""Makes ComfyUI's /object_info."""


def folders_named(prompt: Mapping[str, Any]) -> Iterator[str]:
    """What the nodes of a prompt have been told of folders."""
    for node in prompt.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        named = inputs.get(INPUT) if isinstance(inputs, dict) else None
        if isinstance(named, str) and named.strip():
            yield named


def place_of(named: str | Path) -> Path | None:
    """The folder, links followed; None where there is none, or where it is a whole disk."""
    try:
        place = Path(named).expanduser().resolve()
        return place if place.is_dir() and place != place.parent else None
    except (OSError, RuntimeError, ValueError):  # circles of links, nobody's home, zero bytes
        return None


class Elsewhere:
    """The folders that may be looked at now."""

    def __init__(
        self,
        saved: Path,
        definitions: Definitions,
        queued: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
        allowed: Sequence[Path] = (),
    ) -> None:
        """``saved`` is the folder of workflow files, ``queued`` gives the prompts that wait, run or have run."""
        self._saved, self._queued, self._allowed = saved, queued, tuple(allowed)

        @lru_cache(maxsize=MOST_WORKFLOWS)
        def read(path: Path, changed: int, size: int) -> tuple[str, ...]:
            try:
                return tuple(folders_named(to_prompt(json.loads(path.read_bytes()), definitions())))
            except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, WorkflowError):
                return ()  # whatever else lies there

        self._read = read

    def __call__(self) -> dict[str, Path]:
        """By their keys, in the order in which they are met."""
        named: list[str | Path] = [
            *self._allowed,
            *self._in_workflows(),
            *(one for job in self._queued() for one in folders_named(job)),
        ]
        places = [place_of(one) for one in dict.fromkeys(named)]
        return {key_of(place): place for place in places if place is not None}

    def _in_workflows(self) -> Iterator[str]:
        files = sorted(self._saved.rglob("*.json"))[:MOST_WORKFLOWS] if self._saved.is_dir() else []
        for path in files:
            try:
                facts = path.stat()
            except OSError:
                continue
            if facts.st_size <= LARGEST_WORKFLOW and not path.is_symlink():
                yield from self._read(path, facts.st_mtime_ns, facts.st_size)


def key_of(place: Path) -> str:
    return KEY + hashlib.sha256(str(place).encode(errors="surrogatepass")).hexdigest()[:20]

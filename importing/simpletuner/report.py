"""What the user is told of an import."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

TAKEN_OVER = "Taken over"


@dataclass
class Report:
    """One line for each thing worth knowing, by what it means for the user."""

    left: list[str] = field(default_factory=list)
    """What the user has to do before the workflow can run."""
    changed: list[str] = field(default_factory=list)
    """What runs differently than it did, or than SimpleTuner's documentation says."""
    mapped: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)
    """Options without a place here, kept in the workflow's ``extra.simpletuner``."""
    ignored: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    """Keys that are off, or have SimpleTuner's own default: nothing has to be said of them but their names."""

    def sections(self) -> list[tuple[str, list[str]]]:
        """The parts that hold anything, what matters most first, each under its heading."""
        parts = [
            ("To do before it can run", self.left),
            ("Different from before", self.changed),
            ("Kept, but without a place in the graph (extra.simpletuner in the file)", self.unmapped),
            ("Ignored", self.ignored),
            (TAKEN_OVER, self.mapped),
        ]
        return [(title, list(dict.fromkeys(lines))) for title, lines in parts if lines]

    def text(self) -> str:
        """For a terminal."""
        lines: list[str] = []
        for title, found in self.sections():
            lines += ["", f"{title}:"]
            lines += [textwrap.fill(line, 110, initial_indent="  - ", subsequent_indent="    ") for line in found]
        if self.idle:
            said = f"Off, or as by default: {', '.join(self.idle)}"
            lines += ["", textwrap.fill(said, 110, subsequent_indent="  ")]
        return "\n".join(lines[1:])

    def markdown(self) -> str:
        """For a note on the canvas: without what was simply taken over."""
        lines: list[str] = []
        for title, found in self.sections():
            if title != TAKEN_OVER:
                lines += ["", f"### {title}", *(f"- {line}" for line in found)]
        return "\n".join(lines[1:])

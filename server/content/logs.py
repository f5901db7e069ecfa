"""The newest lines of the log, for the frontend's logs panel."""

import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

MOST_LINES = 300
LONGEST_LINE = 2000  # characters
SIZE = {"cols": 120, "rows": 50}


class Logs(logging.Handler):
    """Keeps what is logged, and passes it on to whoever subscribed."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.lines: deque[dict[str, str]] = deque(maxlen=MOST_LINES)
        self.subscribers: set[str] = set()
        """Ids of clients that have the panel open."""
        self.added: Callable[[dict[str, str]], None] = lambda line: None
        """Called on the logging thread with each line."""

    def emit(self, record: logging.LogRecord) -> None:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat()
        line = {"t": time, "m": self.format(record)[:LONGEST_LINE] + "\n"}
        self.lines.append(line)
        self.added(line)

    def text(self) -> str:
        return "".join(f"{line['t']} - {line['m']}" for line in list(self.lines))

    def raw(self) -> dict[str, Any]:
        return {"entries": list(self.lines), "size": SIZE}

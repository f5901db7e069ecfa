"""The user's wish that a run stops."""

from __future__ import annotations


class Interrupted(BaseException):
    """The user asked the run to stop. Not an Exception, so that nobody swallows it by accident."""

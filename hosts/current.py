"""The host of the running context."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .comfyui import ComfyHost
from .host import Host

_host: ContextVar[Host | None] = ContextVar("rollout_host", default=None)


@contextmanager
def hosted_by(host: Host) -> Iterator[None]:
    """Runs in this context report to ``host``."""
    token = _host.set(host)
    try:
        yield
    finally:
        _host.reset(token)


def current_host() -> Host:
    """The host of this context; ComfyUI where we are its node pack; otherwise one that reports to nobody."""
    host = _host.get()
    if host is None:
        host = ComfyHost() if "comfy.model_management" in sys.modules else Host()
    return host

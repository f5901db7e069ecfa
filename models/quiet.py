"""diffusers and transformers without chatter: no bar for each small part, no warning for each long caption."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """They and the hub show only errors inside; afterwards all is as before. Bars of downloads stay."""
    from diffusers.utils import logging as diffusers_log
    from huggingface_hub import utils as hub
    from transformers.utils import logging as transformers_log

    libraries = (diffusers_log, transformers_log)
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in libraries]
    hub_shows_bars, hub_verbosity = not hub.are_progress_bars_disabled(), hub.logging.get_verbosity()
    hub.logging.set_verbosity_error()
    for log in libraries:
        log.set_verbosity_error()
        log.disable_progress_bar()
    if hub_shows_bars:  # transformers turns the hub's off with its own
        hub.enable_progress_bars()
    try:
        yield
    finally:
        for log, verbosity, bars in before:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
        hub.logging.set_verbosity(hub_verbosity)
        if not hub_shows_bars:
            hub.disable_progress_bars()

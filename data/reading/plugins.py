"""Pictures that Pillow reads with a plug-in only, which people may have installed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib import import_module

from PIL import Image

log = logging.getLogger(__name__)

PLUGINS = {".heic": "pillow_heif", ".heif": "pillow_heif", ".jxl": "pillow_jxl"}
"""The module that reads a suffix."""


def plug_in(suffixes: Iterable[str]) -> None:
    """Let Pillow read these too, where their plug-in is installed."""
    for suffix in {*suffixes} & {*PLUGINS}:
        if suffix in Image.registered_extensions():
            continue
        try:
            module = import_module(PLUGINS[suffix])
            getattr(module, "register_heif_opener", lambda: None)()  # the other registers itself
        except ModuleNotFoundError:
            continue
        except Exception as error:  # a library of its own that does not load, or fits another Pillow
            log.warning("%s is installed and cannot be used: %s", PLUGINS[suffix], error)

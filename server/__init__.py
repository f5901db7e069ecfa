"""ComfyUI's HTTP and WebSocket API over our graph runner, and its official frontend. Knows no concrete node.

The names below are all that the command line needs.
"""

from .application import application
from .content.folders import Folders
from .guard.access import Access, is_loopback, new_token
from .serve import (
    CannotServe,
    address_of,
    frontend_folder,
    leave_within,
    listening_socket,
    serve_until_stopped,
    serving,
)
from .studio import Studio

__all__ = [
    "Access",
    "CannotServe",
    "Folders",
    "Studio",
    "address_of",
    "application",
    "frontend_folder",
    "is_loopback",
    "leave_within",
    "listening_socket",
    "new_token",
    "serve_until_stopped",
    "serving",
]

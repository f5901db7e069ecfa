"""What every reply carries, and how failures look."""

import logging

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from ...files.whole import Unwritable
from .bodies import BadBody
from .inside import Outside

log = logging.getLogger(__name__)

# The frontend compiles templates and runs workers from blobs; nothing is loaded from, or sent to, anywhere else.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

PLAIN = "identity"
"""The one Content-Encoding that is read: a packed body may be junk, or unpack to more than there is memory."""


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For the signal that runs before a reply's headers are sent."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what handlers raise into JSON replies with a reason; the server stays alive whatever happens."""
    encoding = request.headers.get("Content-Encoding", PLAIN)
    if encoding.strip().lower() != PLAIN:
        reason = f"Content-Encoding {encoding!a:.60} is not read: send the body as it is"
        return web.json_response({"error": reason}, status=415)
    try:
        return await handler(request)
    except Outside as error:
        return web.json_response({"error": str(error)}, status=403)
    except BadBody as error:
        return web.json_response({"error": str(error)}, status=error.status)
    except web.HTTPException as error:
        if error.status < 400 or error.content_type == "application/json":
            raise
        return web.json_response({"error": error.text or error.reason}, status=error.status)
    except (FileNotFoundError, NotADirectoryError):
        return web.json_response({"error": "not found"}, status=404)
    except (IsADirectoryError, FileExistsError):
        return web.json_response({"error": "a folder or a file of that name is in the way"}, status=409)
    except (PermissionError, Unwritable):
        return web.json_response({"error": "no permission"}, status=403)
    except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        return web.json_response({"error": f"the request is malformed: {reason:.200}"}, status=400)
    except (ConnectionError, TimeoutError):
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return web.json_response({"error": "the server failed at this; its log says why"}, status=500)

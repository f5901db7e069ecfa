"""Read what a browser sends, within bounds."""

import json
import re
from itertools import accumulate
from typing import Any

from aiohttp import web

LARGEST_BODY = 32 * 1024**2  # bytes of JSON, or of a saved workflow
DEEPEST = 100  # levels of nesting
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
STEPS = {ord(bracket): 1 if bracket in "[{" else -1 for bracket in "[]{}"}


class BadBody(Exception):
    """A request body that cannot be used; the message says why."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


async def read_bytes(request: web.Request, limit: int = LARGEST_BODY) -> bytes:
    """The whole body. Raises BadBody (413) if it is longer than ``limit`` bytes."""
    too_large = BadBody(f"the body is larger than {limit} bytes", 413)
    if (request.content_length or 0) > limit:
        raise too_large
    data = bytearray()
    async for chunk in request.content.iter_any():
        data += chunk
        if len(data) > limit:
            raise too_large
    return bytes(data)


async def read_json(request: web.Request, empty: Any = None) -> Any:
    """The body as JSON, whatever its Content-Type says; ``empty`` if there is no body. Raises BadBody."""
    body = await read_bytes(request)
    return parse(body) if body.strip() else empty


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object; {} if there is no body. Raises BadBody."""
    found = await read_json(request, {})
    if not isinstance(found, dict):
        raise BadBody("the body must be a JSON object")
    return found


def parse(body: bytes) -> Any:
    """JSON that is not nested deeper than anybody needs. Raises BadBody."""
    if depth(body) > DEEPEST:
        raise BadBody(f"the JSON is nested more than {DEEPEST} levels deep")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is not JSON: {error}") from error


def depth(body: bytes) -> int:
    """How deep the brackets of a JSON text are nested, without parsing it."""
    brackets = STRINGS.sub(b"", body).translate(None, NOT_BRACKETS)
    return max(accumulate(map(STEPS.__getitem__, brackets)), default=0)

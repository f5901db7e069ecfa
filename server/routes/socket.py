"""The WebSocket."""

import asyncio
import re
import uuid

from aiohttp import web

from ..sockets.client import Client
from ..sockets.messages import Message
from ..studio import STUDIO
from .system import flags

LARGEST_MESSAGE = 64 * 1024  # bytes; clients have little to say
HEARTBEAT = 30.0  # seconds between two pings; a socket that does not answer is closed
SHOWN_AGAIN = (2.0, 8.0)
"""Seconds after its arrival at which a client is sent the newest pictures once more: the frontend connects before it
loads its graph, and drops pictures for nodes that it does not have yet."""

CLIENT_ID = re.compile(r"[\w.:-]{1,128}")


async def connect(request: web.Request) -> web.StreamResponse:
    """One browser for as long as it stays. A task of its own writes to it; this one listens."""
    studio = request.app[STUDIO]
    wanted = request.query.get("clientId", "")
    if wanted and not CLIENT_ID.fullmatch(wanted):
        return web.json_response({"error": "clientId holds characters that are not allowed"}, status=400)
    if studio.audience.is_full:
        return web.json_response({"error": "too many browsers are connected"}, status=503)
    # Uncompressed: over a short way it would only cost the time that the training wants.
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT, compress=False, max_msg_size=LARGEST_MESSAGE)
    await socket.prepare(request)
    client = Client(wanted or uuid.uuid4().hex, socket, request.transport)
    studio.audience.join(client, studio.status)
    loop, writing = asyncio.get_running_loop(), asyncio.create_task(client.write())
    try:
        async for message in socket:
            is_first = not client.has_spoken
            if client.hears_flags(message):
                client.send(Message("feature_flags", flags()))
                studio.audience.watch(client)
            if is_first and client.watches:
                for seconds in (0.0, *SHOWN_AGAIN):
                    loop.call_later(seconds, studio.audience.show_previews, client)
    finally:
        studio.audience.leave(client)
        studio.logs.subscribers.discard(client.sid)
        writing.cancel()
    return socket


ROUTES = (("GET", "/ws", connect),)

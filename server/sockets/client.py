"""One connected browser."""

import asyncio
import contextlib
import json

from aiohttp import WSMessage, WSMsgType, web

from .messages import Message, Preview
from .outbox import Outbox

PATIENCE = 20.0
"""Seconds that a client may take to accept one message; then its socket is dropped. It may come back at any time."""


class Client:
    """A WebSocket with its outbox. `send` returns at once; `write` runs as a task and waits for the network."""

    def __init__(self, sid: str, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.sid = sid
        self.watches = False
        """Whether it announced its features. Others are programs: they hear of their own jobs, and get no previews,
        which they would take for results."""
        self.understands_metadata = False
        """Whether it announced that it can read previews that say where they belong."""
        self._socket, self._transport = socket, transport
        self._outbox = Outbox()
        self.has_spoken = False
        """Whether it has sent its first message."""

    def send(self, message: Message) -> None:
        if isinstance(message, Preview) and not self.watches:
            return
        if not self._outbox.put(message):
            self.drop()

    async def write(self) -> None:
        """Send what is in the outbox, until the socket closes or stops draining."""
        try:
            while not self._socket.closed:
                frame = (await self._outbox.next()).frame(self.understands_metadata)
                sending = self._socket.send_str(frame) if isinstance(frame, str) else self._socket.send_bytes(frame)
                await asyncio.wait_for(sending, PATIENCE)
        except (TimeoutError, asyncio.TimeoutError, ConnectionError, RuntimeError):
            self.drop()

    def hears_flags(self, message: WSMessage) -> bool:
        """Whether this is the announcement of features, which only a client's first message can be."""
        is_first, self.has_spoken = not self.has_spoken, True
        if not is_first or message.type is not WSMsgType.TEXT:
            return False
        with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
            said = json.loads(message.data)
            if said["type"] == "feature_flags" and isinstance(said["data"], dict):
                self.watches = True
                self.understands_metadata = said["data"].get("supports_preview_metadata") is True
                return True
        return False

    def drop(self) -> None:
        """Cut the connection at once: a polite goodbye would wait for the same network."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what is left, if the client takes it now, and say goodbye; for a server that ends."""
        for _ in range(20):
            if not len(self._outbox):
                break
            await asyncio.sleep(0.05)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._socket.close(code=1001, message=b"server stops"), 1.0)

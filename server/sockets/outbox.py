"""What one client still has to be sent, bounded whatever the client does."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable

from .messages import Message

BEHIND = 16
"""A client with more messages waiting than this gets only the newest progress and pictures."""
MOST_REPLACEABLE = 64
"""Progress and pictures that may wait; the oldest are lost first."""
MOST_LASTING = 2000
"""Messages that must arrive; a client that lets more of them pile up is given up."""
MOST_CHARACTERS = 16_000_000  # of such messages


class Outbox:
    """A queue that tells everything in order to who keeps up, and less to who does not."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, Message] = OrderedDict()
        self._newest: dict[Hashable, int] = {}
        self._count = 0
        self._lasting = self._characters = 0
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> bool:
        """Queue a message; False if the client is hopelessly behind."""
        self._filled.set()
        if message.key is not None:
            self._put_replaceable(message)
            return True
        self._append(message)
        self._lasting += 1
        self._characters += len(message.text)
        return self._lasting <= MOST_LASTING and self._characters <= MOST_CHARACTERS

    def _append(self, message: Message) -> None:
        self._count += 1
        self._waiting[self._count] = message

    def _put_replaceable(self, message: Message) -> None:
        older = self._newest.get(message.key)
        if len(self._waiting) > BEHIND and older is not None and older in self._waiting:
            self._waiting[older] = message  # in its place: a node's state must stay before its pictures
            return
        self._append(message)
        self._newest[message.key] = self._count
        if len(self._waiting) - self._lasting > MOST_REPLACEABLE:
            self._forget(next(number for number, waiting in self._waiting.items() if waiting.key is not None))

    def _forget(self, number: int) -> Message:
        message = self._waiting.pop(number)
        if self._newest.get(message.key) == number:
            del self._newest[message.key]
        return message

    async def next(self) -> Message:
        """The oldest message, as soon as there is one."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        message = self._forget(next(iter(self._waiting)))
        if message.key is None:
            self._lasting -= 1
            self._characters -= len(message.text)
        return message

"""What one client still has to be sent, bounded whatever the client does."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable

from .messages import Message

MOST_REPLACEABLE = 64
"""Progress and pictures that may wait, one of a kind and node; the oldest are lost first."""
MOST_LASTING = 2000
"""Messages that must arrive; a client that lets more of them pile up is given up."""
MOST_CHARACTERS = 16_000_000  # of such messages


class Outbox:
    """A queue in which a newer message of a key takes the place of an older one."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, Message] = OrderedDict()
        self._count = 0
        self._lasting = self._characters = 0
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> bool:
        """Queue a message; False if the client is hopelessly behind."""
        self._filled.set()
        if message.key is not None:
            self._waiting[message.key] = message
            self._forget_oldest()
            return True
        self._count += 1
        self._waiting[self._count] = message
        self._lasting += 1
        self._characters += len(message.frame(True))
        return self._lasting <= MOST_LASTING and self._characters <= MOST_CHARACTERS

    def _forget_oldest(self) -> None:
        if len(self._waiting) - self._lasting > MOST_REPLACEABLE:
            oldest = next(key for key, message in self._waiting.items() if message.key is not None)
            del self._waiting[oldest]

    async def next(self) -> Message:
        """The oldest message, as soon as there is one."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        _, message = self._waiting.popitem(last=False)
        if message.key is None:
            self._lasting -= 1
            self._characters -= len(message.frame(True))
        return message

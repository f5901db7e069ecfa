"""All connected browsers."""

from collections.abc import Collection, Iterator
from typing import Any

from .client import Client
from .messages import Message
from .snapshot import Snapshot

MOST_CLIENTS = 256


class Audience:
    """Sends every message of a job to everybody, and tells late comers what they missed. Lives on the event loop.

    ComfyUI tells only the browser that queued a job. Here all of them hear all of it, so that a training that was
    started on one machine can be watched on another; the frontend itself tells jobs apart by their `prompt_id`, and
    shows errors only where the job's workflow is open.
    """

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self._clients: dict[str, Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    @property
    def is_full(self) -> bool:
        return len(self._clients) >= MOST_CLIENTS

    def join(self, client: Client, status: dict[str, Any]) -> None:
        """Welcome a client: its id, the queue, then the running job. It replaces an older socket of the same id."""
        older = self._clients.pop(client.sid, None)
        if older is not None:
            older.drop()
        self._clients[client.sid] = client
        client.send(Message("status", {"status": status, "sid": client.sid}))
        for message in self.snapshot.story():
            client.send(message)

    def show_previews(self, client: Client) -> None:
        """The newest pictures; sent once the client said which kind of frame it reads."""
        if self._clients.get(client.sid) is client:
            for preview in self.snapshot.previews():
                client.send(preview)

    def leave(self, client: Client) -> None:
        if self._clients.get(client.sid) is client:
            del self._clients[client.sid]

    def send(self, message: Message) -> None:
        self.snapshot.note(message)
        for client in self:
            client.send(message)

    def knows(self, sid: str) -> bool:
        return sid in self._clients

    def send_to(self, sids: Collection[str], message: Message) -> None:
        """Send a message that is no part of a job to some clients only."""
        for sid in sids:
            if sid in self._clients:
                self._clients[sid].send(message)

"""All connected browsers."""

from collections.abc import Collection, Iterator
from typing import Any

from .client import Client
from .messages import Message
from .snapshot import Snapshot

MOST_CLIENTS = 256


class Audience:
    """Sends messages to those whom they concern, and tells late comers what they missed. Lives on the event loop.

    A job's messages go to the client that queued it, as in ComfyUI, and to those who watch: clients that announced
    their features, as browsers do. So a training that was started on one machine can be watched on another; the
    frontend tells jobs apart by their `prompt_id`. A program that only waits for its own job, and takes every message
    for one of it, hears of no other.
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
        """Welcome a client: its id, the queue, then its running job. It replaces an older socket of the same id."""
        older = self._clients.pop(client.sid, None)
        if older is not None:
            older.drop()
        self._clients[client.sid] = client
        client.send(Message("status", {"status": status, "sid": client.sid}))
        if client.sid == self.snapshot.owner:
            self._tell_story(client)

    def watch(self, client: Client) -> None:
        """A client has announced its features: what it missed of a job that somebody else queued."""
        if client.sid != self.snapshot.owner:
            self._tell_story(client)

    def _tell_story(self, client: Client) -> None:
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
        """Send a message that is no part of a job to everybody."""
        for client in self:
            client.send(message)

    def send_of_job(self, owner: str | None, message: Message) -> None:
        """Send a message of the running job to the client that queued it, if one did, and to all who watch."""
        self.snapshot.note(message, owner)
        for client in self:
            if client.watches or client.sid == owner:
                client.send(message)

    def knows(self, sid: str) -> bool:
        return sid in self._clients

    def send_to(self, sids: Collection[str], message: Message) -> None:
        """Send a message that is no part of a job to some clients only."""
        for sid in sids:
            if sid in self._clients:
                self._clients[sid].send(message)

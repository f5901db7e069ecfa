"""What one server works with; every handler finds it in its application."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from aiohttp import web

from ..graph import Executor
from ..graph.node_class import Classes
from .content.folders import Folders
from .content.logs import Logs
from .content.runs import OwnJobs
from .jobs.job import Job, now
from .jobs.job_queue import JobQueue
from .jobs.job_store import FILE, JobStore, open_store
from .jobs.worker import Hosted, Worker
from .sockets.audience import Audience
from .sockets.messages import Message
from .sockets.reporter import INTERVAL, Reporter

STUDIO: web.AppKey["Studio"] = web.AppKey("studio")


class Studio:
    """The queue, its training thread and its audience."""

    def __init__(
        self,
        mapping: Classes,
        display_names: Mapping[str, str],
        folders: Folders,
        hosted: Hosted,
        device: str = "cpu",
        versions: Mapping[str, str] | None = None,
        interval: float = INTERVAL,
        keeps_jobs: bool = False,
        looking: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``keeps_jobs``: whether queue and history are written into the output folder, and read from there first.
        ``looking`` makes the context in which nodes are asked for their inputs and choices: where models are, say.
        """
        self.looking = looking
        self.mapping, self.display_names, self.folders = mapping, display_names, folders
        self.device, self.versions = device, dict(versions or {})
        self.audience = Audience()
        self.jobs = JobQueue(self.announce)
        self.logs = Logs()
        self._interval = interval
        self._keeps_jobs = keeps_jobs
        self._store: JobStore | None = None
        self.begun = now()
        self.waiting_again: list[Job] = []
        """Jobs that were waiting when the server ended the last time."""
        self.left_behind: list[Job] = []
        """Those that were running when it died."""
        self._worker = Worker(self.jobs, lambda: Executor(mapping), hosted, self._reporter, self._tell_of)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work; called on the event loop that will serve the clients."""
        self._loop = asyncio.get_running_loop()
        self._store = open_store(self.folders.output / FILE) if self._keeps_jobs else None
        if self._store is not None:
            jobs = self.jobs.restore(self._store)
            self.waiting_again = [job for job in jobs if job.result is None]
            self.left_behind = self._store.left_behind
        self._worker.start()

    async def stop(self) -> None:
        """Interrupt the running job and wait until it has saved what it learnt, then say goodbye to everybody."""
        self.jobs.close()
        self.jobs.interrupt()
        await asyncio.to_thread(self._worker.join)
        if self._store is not None:
            self._store.close()
        await asyncio.sleep(0)  # its last messages go into the outboxes
        await asyncio.gather(*(client.close() for client in self.audience))

    def free(self) -> None:
        self._worker.forget()

    def submit(
        self,
        prompt: dict[str, Any],
        outputs: list[str],
        extra_data: dict[str, Any] | None = None,
        *,
        job_id: str | None = None,
        number: float | None = None,
        front: bool = False,
        size: int = 0,
        observer: Callable[[str, Any], None] | None = None,
        interrupt: threading.Event | None = None,
    ) -> Job:
        """Queue a validated prompt, from any thread. Raises QueueFull."""
        number = self.jobs.next_number(front) if number is None else number
        job = Job(number, job_id or str(uuid.uuid4()), prompt, outputs, extra_data or {}, size, observer)
        job.interrupt = interrupt or job.interrupt
        self.jobs.put(job)
        return job

    @property
    def own_jobs(self) -> OwnJobs:
        """What the jobs say of the runs on the disk."""
        running = self.jobs.running
        died = [(job.started / 1000, self.begun / 1000) for job in self.left_behind if job.started is not None]
        return OwnJobs(running.started / 1000 if running and running.started else None, died)

    @property
    def status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.jobs.remaining}}

    def announce(self) -> None:
        """Tell everybody how long the queue is; the frontend then reads the list of jobs anew."""
        self.tell("status", {"status": self.status})

    def tell(self, kind: str, data: Any) -> None:
        """Send a message that is no part of a job to everybody, from any thread, after all that was told before."""
        self.on_loop(lambda: self.audience.send(Message(kind, data)))

    def _tell_of(self, job: Job, kind: str, data: Any) -> None:
        self.on_loop(lambda: self.audience.send_of_job(job.client_id, Message(kind, data)))

    def on_loop(self, action: Callable[[], None]) -> None:
        """Do something on the event loop, soon; nothing where there is no loop (any more)."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)

    def _reporter(self, job: Job) -> Reporter:
        assert self._loop is not None
        return Reporter(self._loop, partial(self.audience.send_of_job, job.client_id), self._interval)

"""The one thread that trains."""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ...graph import Executor, Result
from ...graph.running.events import Listener
from ..content.found import log_found
from .job import Job, now
from .job_queue import JobQueue

log = logging.getLogger(__name__)

Hosted = Callable[[Executor, threading.Event], AbstractContextManager[None]]
"""Makes the context in which a job runs, from its executor and its stop signal: where nodes report to, and the like."""

LASTING = ("execution_start", "execution_cached", "execution_success", "execution_error", "execution_interrupted")


class Worker:
    """Takes jobs from the queue and runs them, one after another, on a thread of its own."""

    def __init__(
        self,
        jobs: JobQueue,
        make_executor: Callable[[], Executor],
        hosted: Hosted,
        reporter: Callable[[Job], Listener],
        tell: Callable[[Job, str, Any], None],
    ) -> None:
        """``reporter`` makes the listener of a job; ``tell`` sends a message of it that must not overtake others."""
        self._jobs, self._make_executor, self._hosted = jobs, make_executor, hosted
        self._reporter, self._tell = reporter, tell
        self._executor = make_executor()
        self._forgets = threading.Event()
        self._thread = threading.Thread(target=self._work, name="training", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the thread's end, after the queue was closed; False if it takes longer."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def forget(self) -> None:
        """Let go of all outputs of earlier jobs before the next one runs."""
        self._forgets.set()

    def _work(self) -> None:
        while (job := self._jobs.take()) is not None:
            if self._forgets.is_set():
                self._forgets.clear()
                self._executor = self._make_executor()
            begun = time.perf_counter()
            job.end(self._run(job, self._reporter(job)))
            self._jobs.finish(job)
            self._tell(job, "executing", {"node": None, "prompt_id": job.id})
            job.done.set()
            log.info("job %s: %s after %.1f s", job.id, job.status, time.perf_counter() - begun)
            del job  # nothing of it is held while the thread waits

    def _run(self, job: Job, report: Listener) -> Result:

        def listen(kind: str, data: Any) -> None:
            if kind in LASTING:
                job.messages.append((kind, data))
            report(kind, data)
            log_found(job.prompt, kind, data)
            if job.observer is not None:
                job.observer(kind, data)

        try:
            with self._hosted(self._executor, job.interrupt):
                return self._executor.run(
                    job.prompt,
                    outputs=job.outputs,
                    prompt_id=job.id,
                    extra_data=job.extra_data,
                    listener=listen,
                    interrupt=job.interrupt,
                )
        except BaseException as error:  # whatever it is, the next job must still run
            log.exception("job %s failed outside its nodes", job.id)
            data = _failure(job, error)
            listen("execution_error", data)
            return Result("error", error=data)


def _failure(job: Job, error: BaseException) -> dict[str, Any]:
    """An `execution_error` that blames no node in particular."""
    node_id = job.outputs[0] if job.outputs else ""
    return {
        "prompt_id": job.id,
        "node_id": node_id,
        "node_type": str(job.prompt.get(node_id, {}).get("class_type", "")),
        "executed": [],
        "exception_message": f"{error}\n",
        "exception_type": type(error).__name__,
        "traceback": traceback.format_tb(error.__traceback__),
        "current_inputs": {},
        "current_outputs": list(job.prompt),
        "timestamp": now(),
    }

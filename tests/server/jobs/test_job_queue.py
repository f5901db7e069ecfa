"""The queue by itself."""

import asyncio
import uuid

from comfyui_rollout.graph import Result
from comfyui_rollout.server.jobs.job import Job
from comfyui_rollout.server.jobs.job_queue import MOST_HISTORY, JobQueue


def test_history_is_bounded():
    """The oldest jobs are forgotten, by count and by size."""
    jobs = JobQueue()

    def run(size):
        jobs.put(Job(jobs.next_number(), str(uuid.uuid4()), {}, [], size=size))
        job = jobs.take()
        job.end(Result("success"))
        jobs.finish(job)

    for _ in range(MOST_HISTORY + 10):
        run(1)
    assert len(jobs.history) == MOST_HISTORY
    for _ in range(5):
        run(50 * 1024**2)
    assert len(jobs.history) == 2
    assert jobs.remaining == 0
    asyncio.run(asyncio.sleep(0))

"""Who runs the variants: threads of the standard library on this machine, or submitit on a cluster.

Neither is ours. submitit speaks SLURM, keeps job arrays within a limit and puts jobs back that the cluster stopped; it
needs no server and no database, as Ray does, and what it starts are the very commands that a person would type.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from .sweep import Sweep

Ended = tuple[int, int]
"""A variant's number, and the exit code of its run."""


def on_this_machine(
    sweep: Sweep, numbers: Sequence[int], devices: Sequence[str], stop: threading.Event
) -> Iterator[Ended]:
    """Run variants here, one at a time on each device; yields each as it ends. After ``stop`` none begins."""
    free: queue.Queue[str] = queue.Queue()
    for device in devices:
        free.put(device)

    def work(number: int) -> Ended | None:
        device = free.get()
        try:
            return None if stop.is_set() else (number, sweep.run(number, device, stop))
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(devices)) as pool:
        for future in as_completed([pool.submit(work, number) for number in numbers]):
            ended = future.result()
            if ended is not None:
                yield ended


@dataclass(frozen=True)
class Work:
    """A variant as a cluster's job."""

    sweep: Sweep
    number: int
    device: str

    def __call__(self) -> Ended:
        return self.number, self.sweep.run(self.number, self.device)

    def checkpoint(self) -> Any:
        """When the cluster takes the node away: the same again, which goes on from the run's last state."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def on_a_cluster(
    sweep: Sweep,
    numbers: Sequence[int],
    cluster: str,
    settings: Mapping[str, Any],
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Ended]:
    """Submit variants and wait for them; yields each as it ends.

    ``settings`` are submitit's: ``timeout_min``, ``gpus_per_node``, ``slurm_partition``, ``slurm_array_parallelism``.
    Raises ValueError where submitit is missing, or knows a setting or the cluster not.
    """
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise ValueError("--cluster needs submitit: pip install 'comfyui-rollout[sweep]'") from None
    try:
        executor = AutoExecutor(folder=sweep.folder / "jobs" / "%j", cluster=cluster)
        executor.update_parameters(**settings)
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        raise ValueError(f"--cluster {cluster}: {error}") from None
    with executor.batch():
        jobs = [executor.submit(Work(sweep, number, device)) for number in numbers]
    say(f"{len(jobs)} jobs submitted: {', '.join(job.job_id for job in jobs[:8])}{' ...' if len(jobs) > 8 else ''}")
    for number, job in zip(numbers, jobs, strict=True):
        try:
            yield job.result()
        except Exception as error:  # submitit raises whatever the job did, and its own where the cluster killed it
            say(f"{sweep.run_name(number)}: {str(error).strip().splitlines()[-1]}")
            yield number, 1

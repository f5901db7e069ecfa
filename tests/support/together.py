"""Several processes on this machine, as a launcher starts them, each running one function of a test."""

import multiprocessing
import os
import pickle
import socket
import time
import traceback

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "ResnetBlock2D",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What ``accelerate launch`` sets for FSDP2."""


class Hung(AssertionError):
    """The processes did not end in time: somebody waits for somebody for ever."""


def together(count, task, *arguments, fsdp=False, watchdog=120, environment=None):
    """``task(*arguments)`` in each of ``count`` processes; what each returned, or the words of what it raised, by rank.

    A task that ends its process without a word has None. Raises Hung where they take longer than ``watchdog`` seconds.
    """
    import accelerate  # noqa: F401  # once for all processes
    import torch.distributed.fsdp  # noqa: F401

    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers, processes = [], []
    for rank in range(count):
        receiver, sender = context.Pipe(duplex=False)
        settings = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "ACCELERATE_USE_CPU": "true",
            **(FSDP if fsdp else {}), **(environment or {}),
        }  # fmt: skip
        process = context.Process(target=_run, args=(sender, settings, task, arguments))
        process.start()
        sender.close()
        answers.append(receiver)
        processes.append(process)
    until = time.monotonic() + watchdog
    found = [_answer(receiver, until) for receiver in answers]
    hung = [rank for rank, process in enumerate(processes) if not _ended(process, until)]
    for rank in hung:
        processes[rank].kill()
        processes[rank].join()
    if hung:
        raise Hung(f"processes {hung} still wait after {watchdog} s")
    return found


def _answer(receiver, until):
    try:
        return pickle.loads(receiver.recv_bytes()) if receiver.poll(max(0.0, until - time.monotonic())) else None
    except EOFError:
        return None


def _ended(process, until):
    process.join(max(0.1, until - time.monotonic()))
    return process.exitcode is not None


def _run(sender, settings, task, arguments):
    os.environ.update({name: str(value) for name, value in settings.items()})
    try:
        answer = task(*arguments)
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    sender.send_bytes(pickle.dumps(answer))
    sender.close()
    os._exit(0)

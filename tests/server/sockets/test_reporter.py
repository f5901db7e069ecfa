"""From the thread that trains to the loop that sends: throttled, and in an order that a client understands."""

import asyncio
import time

from comfyui_rollout.server.sockets.reporter import Reporter


def test_no_picture_before_the_first_progress():
    """A client learns from progress which job runs; a picture that comes earlier waits for it, and is not lost."""

    async def check():
        heard = []
        reporter = Reporter(asyncio.get_running_loop(), heard.append, interval=0.01)
        reporter("preview", {"node_id": "1", "prompt_id": "p", "image": None})
        reporter("preview", {"node_id": "2", "prompt_id": "p", "image": None})
        reporter("executed", {"node": "3"})
        await asyncio.sleep(0.05)
        assert [message.kind for message in heard] == ["executed"]
        reporter("progress", {"node": "1", "value": 1})
        await asyncio.sleep(0.05)
        assert [message.kind for message in heard] == ["executed", "progress", "preview", "preview"]
        assert [message.data["node_id"] for message in heard[2:]] == ["1", "2"]

    asyncio.run(check())


def test_throttle():
    """Thousands of steps a second become a few messages; the last values arrive; rows of metrics are all there."""

    async def check():
        heard = []
        reporter = Reporter(asyncio.get_running_loop(), heard.append, interval=0.1)

        def train():
            begun = time.perf_counter()
            for step in range(5000):
                node = {"state": "running", "value": step}
                reporter("progress_state", {"prompt_id": "p", "nodes": {"1": node}})
                reporter("progress", {"node": "1", "value": step})
                reporter("rollout.metrics", {"node": "1", "rows": [{"step": step}]})
                if step % 500 == 0:
                    time.sleep(0.05)
            return time.perf_counter() - begun

        seconds = await asyncio.to_thread(train)
        await asyncio.sleep(0.25)
        states = [message for message in heard if message.kind == "progress_state"]
        assert 2 <= len(states) <= seconds / 0.1 + 3
        assert states[-1].data["nodes"]["1"]["value"] == 4999
        rows = [row["step"] for message in heard if message.kind == "rollout.metrics" for row in message.data["rows"]]
        assert rows == list(range(5000))
        assert (seconds - 0.5) / 15_000 < 100e-6

    asyncio.run(check())


def test_order_of_a_delivery():
    """What may be replaced never moves across what must arrive, and a node's state stays before its picture."""

    async def check():
        heard = []
        reporter = Reporter(asyncio.get_running_loop(), heard.append, interval=30)
        reporter("progress", {"node": "1"})
        reporter("progress_state", {"nodes": {"1": {"state": "running"}}})
        reporter("preview", {"node_id": "1", "prompt_id": "p", "image": None})
        reporter("progress_state", {"nodes": {"1": {"state": "running", "value": 2}}})
        reporter("executed", {"node": "1"})
        reporter("progress_state", {"nodes": {"1": {"state": "finished"}}})
        await asyncio.sleep(0.05)
        kinds = [message.kind for message in heard]
        assert kinds == ["progress", "progress_state", "preview", "executed", "progress_state"]
        assert heard[1].data["nodes"]["1"]["value"] == 2

    asyncio.run(check())

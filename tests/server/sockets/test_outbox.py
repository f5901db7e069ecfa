"""What waits for one client: bounded, in order, the newest of each sort."""

import asyncio

from comfyui_rollout.server.sockets.messages import Message
from comfyui_rollout.server.sockets.outbox import BEHIND, MOST_LASTING, MOST_REPLACEABLE, Outbox


def test_outbox():
    """In order for who keeps up; beyond that the newest of each sort, in the older one's place; never without end."""

    async def check():
        box = Outbox()
        for number in range(BEHIND):
            assert box.put(Message("progress", number, ("progress",)))
        assert [(await box.next()).data for _ in range(BEHIND)] == list(range(BEHIND))
        assert len(box) == 0
        for number in range(1000):
            assert box.put(Message("progress", number, ("progress",)))
            assert box.put(Message("preview", number, ("preview", number)))
        assert len(box) == MOST_REPLACEABLE
        for number in range(MOST_LASTING):
            assert box.put(Message("executed", number))
        assert not box.put(Message("executed", "one too many"))
        kinds = [(await box.next()).kind for _ in range(len(box))]
        assert kinds[-MOST_LASTING - 1 :] == ["executed"] * (MOST_LASTING + 1)
        assert not Outbox().put(Message("executed", "x" * 17_000_000))

    asyncio.run(check())

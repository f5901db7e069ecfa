"""Coroutines of nodes, awaited from synchronous code."""

import asyncio
from contextvars import ContextVar

from comfyui_rollout.graph.settle import settle

WORD = ContextVar("word", default="nothing")


async def word():
    await asyncio.sleep(0)
    return WORD.get()


def test_what_is_no_coroutine_is_itself():
    assert settle(3) == 3


def test_a_coroutine_is_awaited_with_its_context_whether_or_not_a_loop_runs():
    """Inside a running loop it is another thread's, which must see the same prompt and host."""
    WORD.set("seen")
    assert settle(word()) == "seen"

    async def inside():
        return settle(word())

    assert asyncio.run(inside()) == "seen"

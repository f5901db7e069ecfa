"""What a late one has missed, bounded."""

from comfyui_rollout.server.sockets.messages import Message
from comfyui_rollout.server.sockets.snapshot import MOST_ROWS, Snapshot


def test_a_long_curve_is_thinned():
    """However long a run, a bounded number of rows is told to late comers, the newest ones all of them."""
    snapshot = Snapshot()
    for step in range(0, 50_000, 10):
        rows = [{"step": number} for number in range(step, step + 10)]
        snapshot.note(Message("rollout.metrics", {"node": "1", "rows": rows}))
    (message,) = snapshot.story()
    steps = [row["step"] for row in message.data["rows"]]
    assert len(steps) <= MOST_ROWS
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert steps[-100:] == list(range(49_900, 50_000))

"""Messages as text."""

import json

from comfyui_rollout.server.sockets.messages import Message


def test_numbers_that_json_lacks():
    """A loss that is not a number is null for the browser, whose parser would fail on NaN."""
    text = Message("rollout.metrics", {"rows": [{"loss": float("nan"), "deep": (float("inf"), {1: "x"})}]}).text
    assert json.loads(text)["data"] == {"rows": [{"loss": None, "deep": [None, {"1": "x"}]}]}

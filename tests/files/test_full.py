"""A full disk is told from other errors, however it is worded."""

import errno

import pytest
from comfyui_rollout.files.full import is_full


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError(f"Error while serializing: I/O error: (os error {errno.ENOSPC})"),
        RuntimeError("Error while serializing: I/O error: (os error 112)"),
    ],
    ids=["disk", "quota", "safetensors", "safetensors on Windows"],
)
def test_a_full_disk_is_known_also_as_a_cause(error):
    """The system's own, safetensors' words for it, and whatever either of them was turned into."""
    assert is_full(error)
    wrapped = ValueError("cannot write")
    wrapped.__cause__ = error
    assert is_full(wrapped)
    wrapped.__cause__, wrapped.__context__ = None, error
    assert is_full(wrapped)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "denied"), ValueError("full"), RuntimeError("(os error 13)")])
def test_other_errors_are_no_full_disk(error):
    """A run would wait for ever for room that is there."""
    assert not is_full(error)

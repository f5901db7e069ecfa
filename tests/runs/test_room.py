"""Room on the disk before a save: waited for, or said."""

import errno

import pytest
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.runs import room
from comfyui_rollout.runs.room import MARGIN, NoRoom, free_in, with_room


@pytest.fixture
def free(monkeypatch):
    """``free[:] = [bytes, ...]``: what the disk has at each look, the last of them from then on."""
    looks = [0]
    monkeypatch.setattr(room, "free_in", lambda folder: looks.pop(0) if len(looks) > 1 else looks[0])
    monkeypatch.setattr(room, "LOOK_EVERY", 0)
    return looks


def test_with_room_it_is_written_once(free, tmp_path):
    """To the byte: what is needed and the margin."""
    written = []
    free[:] = [1000 + MARGIN]
    with_room(tmp_path, "a state", 1000, lambda: written.append(1), wait=False)
    assert written == [1]


def test_without_room_it_is_said_what_is_missing_and_safe(free, tmp_path):
    """One byte too few is no room; nothing is written."""
    free[:] = [2_000_000 + MARGIN - 1]
    with pytest.raises(NoRoom) as caught:
        with_room(tmp_path, "a state", 2_000_000, pytest.fail, wait=False, kept="step 5 is safe")
    assert caught.value.errno == errno.ENOSPC
    assert f"no room for a state: it takes 2.0 MB, and 2.1 MB are free in {tmp_path}; step 5 is safe" in str(
        caught.value
    )


def test_room_is_waited_for_and_the_line_said_once(free, tmp_path, caplog):
    """Each look asks whether somebody stops; then it is written."""
    asked, written = [], []
    free[:] = [0] * 6 + [10**9]
    with_room(tmp_path, "a state", 1000, lambda: written.append(1), wait=True, interrupted=lambda: asked.append(1))
    assert (len(asked), written) == (3, [1])
    assert len(caplog.records) == 1


def test_a_wait_can_be_stopped(free, tmp_path):
    """Otherwise a full disk would hold the program for ever."""

    def stop():
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        with_room(tmp_path, "a state", 1000, pytest.fail, wait=True, interrupted=stop)


def test_a_disk_that_fills_while_writing_is_no_room_and_other_errors_are_their_own(free, tmp_path):
    """Somebody else writes there too."""
    free[:] = [10**9]

    def write(error):
        def failing():
            raise error

        return failing

    with pytest.raises(NoRoom):
        with_room(tmp_path, "a state", 1, write(OSError(errno.ENOSPC, "full")), wait=False)
    with pytest.raises(PermissionError):
        with_room(tmp_path, "a state", 1, write(PermissionError(errno.EACCES, "denied")), wait=True)


def test_a_folder_that_is_not_there_yet_has_the_room_of_where_it_will_be(tmp_path):
    assert free_in(tmp_path / "run" / "state") > 0

"""A folder belongs to one program at a time, and to nobody once that program is dead."""

import signal
import subprocess
import sys

import pytest
from comfyui_rollout.files.lock import Taken, held, is_held, this_program

HOLD = """
import sys, time
from pathlib import Path
from comfyui_rollout.files.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_once(tmp_path):
    """Also within one program: two jobs of a server must not train into the same folder."""
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(Taken), held(tmp_path):
            pytest.fail("held twice")
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with held(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_the_lock_of_a_killed_program_is_free_at_once(tmp_path):
    """No waiting, no file to delete by hand."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        child.send_signal(signal.SIGKILL)
    assert not is_held(tmp_path)
    with held(tmp_path):
        pass


def test_a_program_says_who_it_is():
    """For the message to whom the folder is refused."""
    assert this_program().keys() == {"pid", "host", "boot"}

"""Which host is the current one."""

import threading
from pathlib import Path

import pytest
from comfyui_rollout.hosts.comfyui import ComfyHost
from comfyui_rollout.hosts.current import current_host, hosted_by
from comfyui_rollout.hosts.host import Host, Interrupted


def test_the_current_host_is_that_of_the_context():
    """Two prompts in two threads report to their own listeners, and nobody stays behind."""
    outer, inner, seen = Host(), Host(), []
    with hosted_by(outer):
        with hosted_by(inner):
            assert current_host() is inner
            thread = threading.Thread(target=lambda: seen.append(current_host()))
            thread.start()
            thread.join()
        assert current_host() is outer
    assert seen[0] not in (outer, inner)
    assert type(current_host()) is Host


def test_inside_comfyui_we_report_to_comfyui(comfy):
    """The pack finds its host by itself: output folder, device and the interrupt are ComfyUI's."""
    host = current_host()
    assert isinstance(host, ComfyHost)
    assert (host.output_folder, host.device) == (Path("/their/output"), "cpu")
    with pytest.raises(Interrupted, match="ComfyUI's own"):
        host.check_interrupted()

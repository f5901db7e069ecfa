"""Our own runner's host: it passes everything on, and makes what somebody looks at."""

from pathlib import Path

import pytest
from comfyui_rollout.hosts.comfyui import ComfyHost
from comfyui_rollout.hosts.events import EventHost
from comfyui_rollout.hosts.host import Interrupted
from PIL import Image


@pytest.fixture
def events():
    return []


@pytest.fixture
def event_host(events):
    return EventHost(
        Path("here"),
        "cpu",
        progress=lambda *data: events.append(("progress", *data)),
        preview=lambda *data: events.append(("preview", *data)),
        finish=lambda *data: events.append(("finish", *data)),
        send=lambda *data: events.append(("send", *data)),
        interrupted=lambda: ("stop",) in events,
        watching=lambda: ("look",) in events,
    )


def test_event_host_passes_everything_on(events, event_host):
    """Our runner hears progress, pictures, metrics and ends, in its own words."""
    event_host.progress("4", 1, 10)
    event_host.show("4", "noisy", 3, "picture")
    event_host.metrics("4", [{"step": 0}])
    event_host.finish("4")
    assert events == [
        ("progress", "4", 1, 10),
        ("preview", "4", "picture"),
        ("send", "rollout.metrics", {"node": "4", "rows": [{"step": 0}]}),
        ("finish", "4"),
    ]
    assert (event_host.output_folder, event_host.device) == (Path("here"), "cpu")


def test_event_host_makes_pictures_only_for_somebody_who_looks(events, event_host):
    """A headless run draws no previews."""
    assert not event_host.wants("noisy")
    events.append(("look",))
    assert event_host.wants("noisy")


def test_event_host_stops_when_asked(events, event_host):
    """ctrl-C and the stop button reach the loop."""
    event_host.check_interrupted()
    events.append(("stop",))
    with pytest.raises(Interrupted):
        event_host.check_interrupted()


def test_browsers_hear_of_frames_once_they_can_be_fetched(events, event_host, comfy):
    """The event names the files; without files there is nothing to say."""
    files = {"subfolder": "rollout/run_00001/rollouts", "image": "6.png", "data": "6.json"}
    heard = {"node": "6", "step": 50, **files}
    for host in (event_host, ComfyHost()):
        host.frames("6", 50, Image.new("RGB", (2, 2)), {})
        host.frames("6", 50, Image.new("RGB", (2, 2)), {}, files)
    assert events == [("send", "rollout.frames", heard)]
    assert comfy == [("send", "rollout.frames", heard, "us")]


def test_browsers_hear_of_a_resume(events, event_host, comfy):
    """The same event from both hosts."""
    for host in (event_host, ComfyHost()):
        host.resumed("9", "run_00001 goes on")
    heard = {"node": "9", "text": "run_00001 goes on"}
    assert events == [("send", "rollout.resumed", heard)]
    assert comfy == [("send", "rollout.resumed", heard, "us")]

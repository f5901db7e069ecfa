"""Where a run reports to: nobody, our runner, or ComfyUI."""

import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from comfyui_rollout.hosts.comfyui import ComfyHost
from comfyui_rollout.hosts.current import current_host, hosted_by
from comfyui_rollout.hosts.device import choose_device
from comfyui_rollout.hosts.events import EventHost
from comfyui_rollout.hosts.host import Host, Interrupted
from PIL import Image


def test_nobody_is_listening_by_default():
    """The loop can be used from plain Python: a host that does nothing is enough."""
    host = Host()
    host.progress("1", 1, 2)
    host.metrics("1", [])
    host.finish("1")
    host.check_interrupted()
    host.make_room()
    assert not host.wants("noisy")


def test_interrupt_is_not_an_exception():
    """`except Exception` in a node must not swallow the user's stop."""
    assert not issubclass(Interrupted, Exception)


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


@pytest.fixture
def comfy(monkeypatch):
    """Just enough of ComfyUI's modules to be its node pack; what they are told is remembered."""
    told = []

    class ProgressBar:
        def __init__(self, total, node_id=None):
            self.node_id, self.current = node_id, 0

        def update_absolute(self, value, total=None, preview=None):
            self.current = value
            told.append(("update", self.node_id, value, total, preview))

    def stop():
        raise Interrupted("ComfyUI's own")

    contents = {
        "comfy": {},
        "comfy.model_management": {
            "get_torch_device": lambda: "cpu",
            "throw_exception_if_processing_interrupted": stop,
            "unload_all_models": lambda: told.append(("unload_all_models",)),
            "soft_empty_cache": lambda: told.append(("soft_empty_cache",)),
        },
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy_execution": {},
        "comfy_execution.progress": {
            "get_progress_state": lambda: SimpleNamespace(finish_progress=lambda node: told.append(("finish", node)))
        },
        "folder_paths": {"get_output_directory": lambda: "/their/output"},
        "server": {
            "PromptServer": SimpleNamespace(
                instance=SimpleNamespace(client_id="us", send_sync=lambda *message: told.append(("send", *message)))
            )
        },
    }
    for name, members in contents.items():
        stub = ModuleType(name)
        vars(stub).update(members)
        monkeypatch.setitem(sys.modules, name, stub)
    return told


def test_inside_comfyui_we_report_to_comfyui(comfy):
    """The pack finds its host by itself: output folder, device and the interrupt are ComfyUI's."""
    host = current_host()
    assert isinstance(host, ComfyHost)
    assert (host.output_folder, host.device) == (Path("/their/output"), "cpu")
    with pytest.raises(Interrupted, match="ComfyUI's own"):
        host.check_interrupted()


def test_comfyui_lets_go_of_its_models(comfy):
    """Its checkpoints would fill the card on which we encode, train and sample."""
    ComfyHost().make_room()
    assert comfy == [("unload_all_models",), ("soft_empty_cache",)]


def test_comfyui_sees_progress_previews_metrics_and_ends_per_node(comfy):
    """A preview must not reset the progress of its node, nor the other way round."""
    host, picture = ComfyHost(), Image.new("RGBA", (2, 2))
    host.progress("4", 3, 10)
    host.show("4", "noisy", 3, picture)
    host.progress("5", 1, 10)
    host.metrics("6", [{"step": 0}])
    host.finish("4")
    assert host.wants("noisy")
    assert comfy[0] == ("update", "4", 3, 10, None)
    kind, shown, size = comfy[1][-1]
    assert comfy[1][:4] == ("update", "4", 3, None)
    assert (kind, shown.mode, size) == ("JPEG", "RGB", None)
    assert comfy[2:] == [
        ("update", "5", 1, 10, None),
        ("send", "rollout.metrics", {"node": "6", "rows": [{"step": 0}]}, "us"),
        ("finish", "4"),
    ]


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, chosen):
    """``auto`` must never end on the processor beside an idle accelerator."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "mps:0"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    """A missing driver is one clear line, not a traceback from torch."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"^device '{name}' is not available here: choose auto or one of cpu$"):
        choose_device(name)


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "CPU"])
def test_a_name_that_torch_does_not_know_is_refused(name):
    """A typing error is one clear line, too."""
    with pytest.raises(ValueError, match=rf"^device '{name}' is none that torch knows: choose auto, cpu, cuda or mps$"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:1", "xpu", "npu:0", "cpu"])
def test_any_other_device_is_taken_as_given(monkeypatch, name):
    """torch runs on more than we can ask about, and its own plug-ins know best whether theirs is there."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if name.startswith("npu"):  # a plug-in's name for torch's spare device
        monkeypatch.setattr(torch, "device", lambda name: SimpleNamespace(type="npu"))
    assert choose_device(name) == name


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

"""Photos of phones, with a plug-in of Pillow's and without one."""

import sys
import types

import pytest
from comfyui_rollout.data.reading.folder import WITH_PLUGIN, look_into
from comfyui_rollout.data.reading.plugins import PLUGINS
from PIL import Image


@pytest.fixture
def phones(tmp_path):
    """A folder with a photo of a phone."""
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    return tmp_path


@pytest.fixture(autouse=True)
def unregistered(monkeypatch):
    monkeypatch.setattr(Image, "registered_extensions", dict)


def test_all_that_need_one_have_one():
    assert set(PLUGINS) == WITH_PLUGIN


def test_an_installed_plug_in_is_used(phones, monkeypatch):
    """Once such a photo is found; nobody else registers it for us."""
    used = []
    plugin = types.SimpleNamespace(register_heif_opener=lambda: used.append("heif"))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    look_into(phones)
    assert used == ["heif"]
    (phones / "IMG_1.HEIC").unlink()
    look_into(phones)
    assert used == ["heif"]


def test_one_that_does_not_load_stops_nothing(phones, monkeypatch, caplog):
    """Built for another Pillow, or without its library; and where none is installed nothing is said."""

    def broken():
        raise ImportError("libheif.so.1: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=broken))
    assert len(look_into(phones).pictures) == 1
    assert caplog.messages == [
        "pillow_heif is installed and cannot be used: libheif.so.1: cannot open shared object file"
    ]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    look_into(phones)
    assert len(caplog.messages) == 1

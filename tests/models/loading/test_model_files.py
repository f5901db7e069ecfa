"""Model files by name, in the folders where ComfyUI keeps them."""

import os
from pathlib import Path

import pytest
from comfyui_rollout.hosts.host import Host
from comfyui_rollout.models.loading.model_files import CHECKPOINTS, changed_at, find_model, find_models, list_models


class Folders(Host):
    """Two folders of checkpoints, as with extra_model_paths.yaml, and one each of the others."""

    def __init__(self, root):
        self.root = root

    def model_folders(self, kind):
        return [self.root / kind, self.root / "extra" / kind] if kind == "checkpoints" else [self.root / kind]


@pytest.fixture
def host(tmp_path):
    for name in (
        "checkpoints/a.safetensors",
        "checkpoints/sdxl/b.safetensors",
        "checkpoints/old.ckpt",
        "extra/checkpoints/c.safetensors",
        "diffusion_models/d.safetensors",
        "diffusers/pipeline/model_index.json",
        "diffusers/pipeline/unet/e.safetensors",
        "vae/f.safetensors",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return Folders(tmp_path)


def test_listing(host):
    """Files below all folders of a kind, pipelines as a whole; nothing that is pickled."""
    assert list_models(host, *CHECKPOINTS) == [
        "a.safetensors", "c.safetensors", "d.safetensors", "pipeline", "sdxl/b.safetensors"
    ]  # fmt: skip
    assert list_models(host, "vae") == ["f.safetensors"]
    assert list_models(host, "loras") == []


def test_finding(host, tmp_path, monkeypatch):
    """A name from the list, a path of its own, a home folder, or a hub id, which stays as it is."""
    assert find_model(host, "sdxl/b.safetensors", *CHECKPOINTS) == str(tmp_path / "checkpoints/sdxl/b.safetensors")
    assert find_model(host, " c.safetensors ", *CHECKPOINTS) == str(tmp_path / "extra/checkpoints/c.safetensors")
    assert find_model(host, "pipeline", *CHECKPOINTS) == str(tmp_path / "diffusers/pipeline")
    assert find_model(host, str(tmp_path / "vae/f.safetensors"), "loras") == str(tmp_path / "vae/f.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model(host, "~/vae/f.safetensors", "loras") == str(tmp_path / "vae/f.safetensors")
    assert find_model(host, "somebody/model", *CHECKPOINTS) == "somebody/model"
    assert find_model(host, "", *CHECKPOINTS) == ""


def test_finding_several(host, tmp_path):
    """In the order in which they are named; stray commas and blanks count for nothing."""
    found = find_models(host, " f.safetensors,, a.safetensors ,", "vae", "checkpoints")
    assert [Path(path).relative_to(tmp_path).as_posix() for path in found] == [
        "vae/f.safetensors",
        "checkpoints/a.safetensors",
    ]
    assert find_models(host, " ", "vae") == ()


def test_a_change_anywhere_in_a_folder_counts(tmp_path, host):
    """A file that was replaced inside a pipeline's folder leaves the folder's own date as it was."""
    folder = tmp_path / "diffusers" / "pipeline"
    before = changed_at(str(folder))
    os.utime(folder / "unet" / "e.safetensors", ns=(before + 10, before + 10))
    assert changed_at(str(folder)) == before + 10
    assert changed_at(str(folder / "unet" / "e.safetensors")) == before + 10
    assert changed_at("somebody/model") == changed_at("") == 0

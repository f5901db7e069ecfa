"""Model files by name: what lies in the folders where ComfyUI keeps models, or in ``models/`` beside us."""

from __future__ import annotations

from pathlib import Path

from ...hosts.host import Host

CHECKPOINTS = ("checkpoints", "diffusion_models", "diffusers")
"""Kinds of folders that hold networks: all in one file, the network alone, or a pipeline's folder."""


def list_models(host: Host, *kinds: str) -> list[str]:
    """Names, relative to their folder, of the safetensors files and pipeline folders of these kinds."""
    names = set()
    for kind in kinds:
        for folder in host.model_folders(kind):
            files = [*folder.rglob("*.safetensors")] if kind != "diffusers" else []
            pipelines = [index.parent for index in folder.glob("*/*model_index.json")]
            names |= {path.relative_to(folder).as_posix() for path in [*files, *pipelines]}
    return sorted(names)


def find_model(host: Host, name: str, *kinds: str) -> str:
    """The full path of a name from :func:`list_models`, or the name itself: a path of its own, or a hub id."""
    name = name.strip()
    for kind in kinds:
        for folder in host.model_folders(kind):
            if name and (folder / name).exists():
                return str(folder / name)
    return str(Path(name).expanduser()) if name and Path(name).expanduser().exists() else name


def find_models(host: Host, names: str, *kinds: str) -> tuple[str, ...]:
    """:func:`find_model` for each of several names, separated by commas."""
    return tuple(find_model(host, name, *kinds) for name in names.split(",") if name.strip())


def changed_at(path: str) -> int:
    """When a model file, or any file in a pipeline's folder, was last changed, in ns; 0 for one that is not here."""
    place = Path(path)
    if not path or not place.exists():
        return 0
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return max((file.stat().st_mtime_ns for file in files), default=0)

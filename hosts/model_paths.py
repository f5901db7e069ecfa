"""Where a standalone studio keeps models: as ComfyUI does, and in the folders that its extra_model_paths.yaml names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "extra_model_paths.yaml"
"""ComfyUI's name for it; read from beside the models' folder without being asked for."""

KINDS = ("checkpoints", "diffusers", "diffusion_models", "loras", "text_encoders", "vae")
"""Folders that are made on the first start, so that a person sees where models belong."""

FORMER = {"diffusion_models": "unet", "text_encoders": "clip"}
"""ComfyUI's former names of folders, which people still have."""


@dataclass(frozen=True)
class ModelPaths:
    """Folders of models by their kind."""

    homes: tuple[Path, ...]
    """``models``, with a folder for each kind; several where people may have put it into several places."""
    first: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Folders that come before ours: a section with ``is_default: true``."""
    more: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, homes: Iterable[Path], files: Iterable[Path] = ()) -> ModelPaths:
        """With the folders of these files; without any, of those beside the ``homes``, if there are some.

        Raises ValueError, naming the file, where one cannot be read.
        """
        homes = tuple(dict.fromkeys(homes))
        files = tuple(files) or tuple(path for path in (home.parent / FILE for home in homes) if path.is_file())
        first: dict[str, list[Path]] = defaultdict(list)
        more: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            for is_default, kind, folder in folders_in(file):
                (first if is_default else more)[kind].append(folder)
        return cls(homes, *({kind: tuple(found) for kind, found in part.items()} for part in (first, more)))

    def of(self, kind: str) -> list[Path]:
        """All folders of a kind, those under its former name included, the most important first."""
        names = [kind, *([FORMER[kind]] if kind in FORMER else [])]
        return [
            *(folder for name in names for folder in self.first.get(name, ())),
            *(home / name for home in self.homes for name in names),
            *(folder for name in names for folder in self.more.get(name, ())),
        ]

    def make(self) -> None:
        """Make the first home and its folders, where that is possible and they are not there."""
        for kind in KINDS:
            try:
                (self.homes[0] / kind).mkdir(parents=True, exist_ok=True)
            except OSError:  # a read-only place: models may still be elsewhere
                return


def folders_in(file: Path) -> list[tuple[bool, str, Path]]:
    """``(is_default, kind, folder)`` of each line of a file in ComfyUI's format; raises ValueError if it is none."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{file} holds no sections: write them as ComfyUI's {FILE}.example does")
    found = []
    for section, lines in (content or {}).items():
        if lines is None:
            continue
        if not isinstance(lines, dict):
            raise ValueError(f"{file}: {section} holds no folders: write kind: folder lines below it")
        base = place(lines.get("base_path"), file.resolve().parent)
        is_default = lines.get("is_default") is True
        for kind, text in lines.items():
            if kind not in ("base_path", "is_default"):
                found += [
                    (is_default, str(kind), place(part, base)) for part in parts_of(file, f"{section}.{kind}", text)
                ]
    return found


def parts_of(file: Path, name: str, text: Any) -> list[str]:
    """The folders of one kind, one a line; ComfyUI's own example has remarks behind them."""
    if text is None:
        return []
    if not isinstance(text, str):
        raise ValueError(f"{file}: {name} must be a folder, or several, one a line")
    parts = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [part for part in parts if part and not part.startswith("#")]


def place(text: Any, base: Path) -> Path:
    """A folder as it is written: with ``~`` and variables, from ``base`` if it is relative."""
    return base / Path(os.path.expandvars(str(text))).expanduser() if text else base

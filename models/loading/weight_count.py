"""How much memory weights need, from the headers of their files: nothing is read, nothing is downloaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...files.weights import header
from .single_file import PARTS, parts_in
from .source import PretrainedInfo, Source

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "fp8": 1.0, "nf4": 0.5}
"""Bytes of one weight by its storage or quantisation, without the few scales of the latter."""

TRAINED_BYTES = 4 + 4 + 8
"""A trained weight in float32, its gradient, and AdamW's two moments."""


def count_weights(source: Source, info: PretrainedInfo, home: Path) -> dict[str, int]:
    """Weights of each component (``unet``, ``vae``, ``text_encoder`` ...) whose files are on this machine."""
    names = [info.kind.network_part, "vae", *(name for name in info.kind.text_parts if "tokenizer" not in name)]
    counts = {name: count for name in names if (count := count_in_folder(home / name))}
    if source.is_file:
        counts |= count_in_file(source.path, info.kind.network_part)
    return counts


def count_in_folder(folder: Path) -> int:
    """Weights of a component's folder: of its plain files, or of a variant's (``*.fp16.safetensors``)."""
    files = weight_files(folder)
    return sum(math.prod(tensor.shape) for path in files for tensor in header(path).values())


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one component, all shards of it, in one variant: the plain one if it is there."""
    files = sorted(folder.glob("*.safetensors"))
    return [path for path in files if not variant_of(path)] or [path for path in files if variant_of(path) == "fp16"]


def variant_of(path: Path) -> str:
    """``fp16`` for model.fp16.safetensors and model.fp16-00001-of-00002.safetensors; empty for a plain file."""
    middle = path.name.split(".")[1:-1]
    return middle[0].split("-")[0] if middle else ""


def count_in_file(path: str, network_part: str) -> dict[str, int]:
    """Weights of the components that a single file holds; what belongs to no other is the network's."""
    tensors, parts = header(path), parts_in(path)
    counts = dict.fromkeys([network_part, *sorted(parts)], 0)
    for name, tensor in tensors.items():
        part = next((part for part in sorted(parts) if name.startswith(PARTS[part])), network_part)
        if not name.startswith("model_ema."):
            counts[part] += math.prod(tensor.shape)
    return counts


def network_bytes(source: Source, count: int) -> int:
    """Bytes of a network of so many weights, kept as ``source`` says."""
    return round(count * BYTES[source.storage if source.quantization == "none" else source.quantization])


def training_bytes(weights: Mapping[str, int], source: Source, network_part: str, trained: int) -> int:
    """Bytes that training needs beside activations: the network as it is kept, and 16 for each trained weight.

    Full fine-tuning keeps the network itself in float32: ``trained`` is then all of it, and it is counted once.
    """
    frozen = weights.get(network_part, 0) - (trained if trained >= weights.get(network_part, 0) else 0)
    return network_bytes(source, max(frozen, 0)) + trained * TRAINED_BYTES


def lora_weights(layers: Iterable[Sequence[int]], rank: int) -> int:
    """How many weights a LoRA of this rank has on layers of these shapes (out, in, ...)."""
    return sum(rank * (math.prod(shape[1:]) + shape[0]) for shape in layers)


def in_words(number: float, unit: str = "") -> str:
    """``2.57 B``, ``865 M`` weights; with unit ``B`` bytes: ``5.1 GB``."""
    size, letter = next(
        (size, letter)
        for size, letter in ((1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k"), (1, ""))
        if number >= size or size == 1
    )
    return (
        f"{number / size:.{1 if unit else 2}f} {letter}{unit}" if size >= 1e9 else f"{number / size:.0f} {letter}{unit}"
    )

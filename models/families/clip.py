"""How CLIP reads a caption of any length: in windows of 75 tokens, one behind the other, as ComfyUI does.

Each window is read by itself, between a token that begins it and one that ends it; what the network is told is all of
them in a row. Weights such as ``(like this:1.2)`` are no syntax here: they are read as text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.solvers import Conditioning

MOST_WINDOWS = 4
"""What lies behind 300 tokens is cut off, and Encode Dataset says so."""


def tokens_of(captions: Sequence[str], *tokenizers: Any) -> Tensor:
    """The numbers (captions, tokenizers, windows * length) that CLIP reads, each window padded to the same length.

    Captions of fewer windows come several times over: in cross-attention a text that is repeated says the same.
    """
    read = [[windows_of(caption, tokenizer) for tokenizer in tokenizers] for caption in captions]
    most = [max(map(len, windows)) for windows in read]  # tokenizers with another vocabulary may need fewer
    together = math.lcm(*most)
    rows = []
    for windows, count in zip(read, most, strict=True):
        padded = [
            [*one, *windows_of("", tokenizer) * (count - len(one))]
            for one, tokenizer in zip(windows, tokenizers, strict=True)
        ]
        rows.append([[token for window in one for token in window] * (together // count) for one in padded])
    return torch.tensor(rows)


def windows_of(caption: str, tokenizer: Any) -> list[list[int]]:
    """The tokens of a caption in windows of the tokenizer's length; one for an empty caption."""
    room = tokenizer.model_max_length - 2
    ids = plain_tokens(caption, tokenizer)[: MOST_WINDOWS * room]
    windows = []
    for start in range(0, max(1, len(ids)), room):
        window = [tokenizer.bos_token_id, *ids[start : start + room], tokenizer.eos_token_id]
        windows.append(window + [tokenizer.pad_token_id] * (room + 2 - len(window)))
    return windows


def plain_tokens(caption: str, tokenizer: Any) -> list[int]:
    """All tokens of a caption, without those that begin and end it."""
    ids: list[int] = tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return ids


def split(tokens: Tensor, encoder: nn.Module) -> Tensor:
    """Windows (B * windows, length) of tokens (B, windows * length), as long as the encoder reads."""
    length: int = encoder.config.max_position_embeddings  # type: ignore[union-attr, assignment]
    return tokens.reshape(-1, min(length, tokens.shape[-1]))


def joined(states: Tensor, count: int) -> Tensor:
    """States (B, windows * length, channels) of windows (B * windows, length, channels)."""
    return states.reshape(count, -1, states.shape[-1])


def first_of(pooled: Tensor, count: int) -> Tensor:
    """What CLIP makes of all of a text (B, channels): of its first window, given all (B * windows, channels)."""
    return pooled.reshape(count, -1, pooled.shape[-1])[:, 0]


def alike(*told: Conditioning) -> list[Conditioning]:
    """The same with texts and tokens of one length: shorter ones are repeated until they are as long as the others."""
    lengths = [one["text"].shape[1] for one in told]
    longest = math.lcm(*lengths)
    return [
        {
            name: torch.cat([value] * (longest // length), -1 if name == "tokens" else 1)
            if name in ("text", "tokens")
            else value
            for name, value in one.items()
        }
        if length < longest
        else one
        for one, length in zip(told, lengths, strict=True)
    ]


def skip_layers(encoder: nn.Module, clip_skip: int) -> None:
    """Have the encoder end at its ``clip_skip``-th last layer, whose states its last norm still goes over.

    So do ComfyUI's CLIP Set Last Layer and sd-scripts; 0 and 1 are the encoder as it is.
    """
    if clip_skip < 2:
        return
    inner: Any = encoder.text_model if hasattr(encoder, "text_model") else encoder
    layers = inner.encoder.layers
    if clip_skip > len(layers):
        raise ValueError(f"clip_skip: {clip_skip} is more than the {len(layers)} layers of the text encoder")
    inner.encoder.layers = layers[: len(layers) - clip_skip + 1]
    encoder.config.num_hidden_layers = len(inner.encoder.layers)  # type: ignore[union-attr]

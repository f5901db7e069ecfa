"""The old place of data/data.py, kept for programs of version 0.1."""

from ..data.data import Batch, DatasetInfo, Digits, next_batch

__all__ = ["Batch", "DatasetInfo", "Digits", "next_batch"]

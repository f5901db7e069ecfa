"""Pretrained models as people have them (a folder, a hub id, one file): recognised, counted and loaded."""

"""Nodes that train: the optimizer and its step."""

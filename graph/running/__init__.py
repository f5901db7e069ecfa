"""Executing a prompt: in which order, what is kept, which events it emits."""

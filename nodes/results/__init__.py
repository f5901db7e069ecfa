"""Nodes that show and save what was learnt: samples, previews, curves, probes, LoRA files."""

"""Nodes that bring a network: new, saved or pretrained, with or without a LoRA."""

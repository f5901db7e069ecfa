"""Adapter files (LoRA, LoKr, LoHa): the names, formats and metadata that other tools read and write."""

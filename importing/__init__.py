"""Workflows made of other trainers' configurations."""

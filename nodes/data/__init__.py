"""Nodes that bring pictures: data sets, mixtures, encoding."""

"""Files of every kind, written whole or not at all: names, text, JSON and weights. Knows nobody."""

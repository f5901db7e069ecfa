"""One training step as a graph of streams, and the loop that repeats it."""

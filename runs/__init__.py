"""A run: the loop with its looks, the folder that it leaves, its samples, and where it goes on."""

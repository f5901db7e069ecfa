"""One training step, and the loop around it: streams, data, models, optimizers, checkpoints, previews."""

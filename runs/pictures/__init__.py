"""What a run shows: latents and rollouts as pictures, films of rollouts, curves."""

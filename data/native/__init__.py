"""What the host has on its sockets, as data: its images, latents and encoded texts, and its encoders."""

"""Pictures and captions encoded once by a model's encoders, kept on disk, and read from there."""

"""From pictures and captions to the batch of a step: reading, cropping, encoding, caching, mixing."""

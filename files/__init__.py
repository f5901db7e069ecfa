"""What the house knows about files whoever reads or writes them. Knows nobody."""

"""Networks behind one face: what they are, how they are kept in memory, and how they are saved."""

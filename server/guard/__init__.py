"""What is let in: addresses, hosts, tokens, sizes, and paths that stay inside."""

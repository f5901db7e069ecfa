"""Who hears what: clients, their messages, and what a late one has missed."""

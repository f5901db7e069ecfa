"""What was queued, runs and has run, also across restarts."""

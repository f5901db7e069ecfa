"""Many runs of one workflow: a grid of settings, given to a scheduler, and what came of each."""

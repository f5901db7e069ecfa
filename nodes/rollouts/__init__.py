"""Nodes of the training step: noise schedules, noisy batches, rollouts, losses."""

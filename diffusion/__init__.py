"""The core mathematics, on tensors: schedules, prediction types, solvers, rollouts, losses.

Levels (``timestep``, ``alpha``, ``sigma``) are float64 tensors of shape (B,) that live on the CPU, so that control
flow and step coefficients never wait for the device; latents live on the device in float32.
"""

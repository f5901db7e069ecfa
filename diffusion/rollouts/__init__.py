"""What rollouts are made of: their plan, guidance, steps with noise, and noising again."""

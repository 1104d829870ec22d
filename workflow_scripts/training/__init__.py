"""Training rows, collators, trainers, checkpoints and resume."""

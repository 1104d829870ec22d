"""TRL's trainers on the shared-prefix engine."""

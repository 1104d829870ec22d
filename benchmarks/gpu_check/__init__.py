"""What a GPU makes of the project, checked and measured within 8 minutes: `python -m benchmarks.gpu_check`."""

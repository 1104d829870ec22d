"""Errors, files, paths, locks, GPUs, credentials and the command line: what every room may use."""

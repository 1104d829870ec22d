"""Errors, files, paths, credentials and the command line: what every room may use."""

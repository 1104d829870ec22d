"""What is wrong with records on disk, what they hold, and what leaks between splits."""

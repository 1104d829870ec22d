"""What answers: models on this machine, or servers."""

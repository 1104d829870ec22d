"""What each command does: the configuration comes in here, the phases of a stage follow, its results are written."""

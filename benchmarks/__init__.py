"""What the workflow costs, measured: each module is a command."""

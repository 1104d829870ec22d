"""What the workflow costs, measured."""

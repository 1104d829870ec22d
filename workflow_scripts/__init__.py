"""Fine-tune GLM-4.1V / 4.5V on medical visual question answering: one command per stage of the chain."""

__version__ = "0.1.0"  # here alone: pyproject.toml, the wheel and what results record read it

"""Fine-tune GLM-4.1V / 4.5V on medical visual question answering: one command per stage of the chain."""

"""Rows of tokens, the batches that they make up, and what batches are made of."""

"""Configurations of LLaMA-Factory and ms-swift as ones of ours, with every key told that has no counterpart.

Names and defaults are those of LLaMA-Factory's `src/llamafactory/hparams/` (commit 00577a8) and ms-swift's
`swift/arguments/` (commit 00e9ca8, of 4.x), both over transformers' TrainingArguments.
"""

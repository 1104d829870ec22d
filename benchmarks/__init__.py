"""Speed against stock TRL, both in one process: `python -m benchmarks.sft`, `python -m benchmarks.dpo`."""

"""Stands in for `python` when the workflow calls its commands: takes a while, says when, and makes what a rule promises.

SECONDS_OF (JSON) says how long a stage, or a stage of one data set, takes; FAILING which stage fails.
"""

import json
import os
import sys
import time
from pathlib import Path

stage = sys.argv[2].removeprefix("workflow_scripts.")
given = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
dataset = given.get("--dataset", "")
run = "_".join(given[flag] for flag in ("--dataset", "--model_version", "--mode") if flag in given)
outputs = {
    "download": [f"{'raw' if dataset else 'models'}/{run}/manifest.json"],
    "convert": [
        f"data/{run}/{name}" for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "summary.json")
    ],
    "validate": [f"data/{run}/validation.json", f"data/{run}/validation.html"],
    "sft": [f"sft/{run}/metrics.json"],
    "preferences": [f"preferences/{run}{end}" for end in (".jsonl", ".validation.jsonl", ".json")],
    "dpo": [f"dpo/{run}/metrics.json"],
    "ask": [
        f"answers/{run}/{given.get('--model')}.{given.get('--variant')}.{end}" for end in ("jsonl", "json")
    ],
    "evaluate": [f"eval/{run}.json"]
    + [f"eval/{run}/{name}" for name in ("predictions.jsonl", "predictions.parquet", "evaluation.html")],
}

start = time.time()
print(f"{stage} is at work", flush=True)
if stage == os.environ.get("FAILING"):
    sys.exit("error: the disk is full")
seconds = json.loads(os.environ.get("SECONDS_OF", "{}"))
time.sleep(seconds.get(f"{stage} {dataset}", seconds.get(stage, 0.1)))
for output in outputs.get(stage, []):
    path = Path("results", output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
with Path("times.jsonl").open("a", encoding="utf-8") as file:
    print(json.dumps([stage, start, time.time()]), file=file)

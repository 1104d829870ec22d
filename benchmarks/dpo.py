"""DPO on the shared-prefix engine against stock DPOTrainer: same model, same pairs, same order."""

import argparse
import sys
import time
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from benchmarks import common, timing
from workflow_scripts.datasets.records import Record
from workflow_scripts.models import loading
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.data import rows
from workflow_scripts.training.data.collators import PreferenceCollator
from workflow_scripts.training.trainers.dpo import SharedPrefixDPOTrainer


class StockTrainer(common.StockOrder, DPOTrainer):
    """TRL's trainer, in the order of the dataset."""


def measure(case: common.Case, options: argparse.Namespace) -> timing.Cell:
    """One cell of the table."""
    pairs = [_pair(record) for record in case.records]
    ours = rows.preference_rows(case.write("pairs.jsonl", pairs), case.dialogue)
    unique = common.unique_tokens(case, PreferenceCollator(case.processor, case.pixels()), ours)
    total = sum(
        len(row["prompt_ids"]) + len(row[side]) - 2 + case.dialogue.image_tokens(case.side, case.side)
        for row in ours
        for side in ("chosen_ids", "rejected_ids")
    )
    return timing.measure(
        case,
        lambda: stock(case, pairs, options.method),
        lambda: engine(case, ours, options.method),
        (total, unique),
        options.repeats,
        options.method,
    )


def _pair(record: Record) -> dict[str, Any]:
    """A pair of the record's answer and another of like length."""
    question, answer = record["messages"]
    rejected = VERSIONS[common.VERSION].answer_format(common.MODE).write("no such organ")
    return {**record, "messages": [question], "chosen": answer["content"], "rejected": rejected}


def stock(case: common.Case, pairs: list[dict[str, Any]], method: str) -> DPOTrainer:
    """TRL's trainer with a reference model of its own."""
    stop = VERSIONS[common.VERSION].stop_token
    listed = [
        {
            "images": [case.image(pair)],
            "prompt": [{"role": "user", "content": pair["messages"][0]["content"].removeprefix("<image>")}],
            **{
                side: [{"role": "assistant", "content": pair[side] + stop}] for side in ("chosen", "rejected")
            },
        }
        for pair in pairs
    ]
    model = common.model()
    return StockTrainer(
        model,
        ref_model=common.model() if method == "full" else None,
        peft_config=common.adapter(model, method),
        args=DPOConfig(**common.arguments(case, case.folder / "stock")),
        train_dataset=Dataset.from_list(listed),
        processing_class=case.processor,
    )


def engine(case: common.Case, dataset: Dataset, method: str) -> tuple[DPOTrainer, float]:
    """Our trainer, and the seconds of the passes that it makes once: vision features and the reference."""
    model, pixels = common.model(), case.pixels()
    started = time.perf_counter()
    store = common.kept_features(case.folder, model, pixels, dataset)
    trainer = SharedPrefixDPOTrainer(
        model,
        args=DPOConfig(**common.arguments(case, case.folder / "ours"), precompute_ref_log_probs=True),
        train_dataset=dataset,
        processing_class=case.processor,
        data_collator=PreferenceCollator(
            case.processor, pixels, store, loading.use_tree_attention(model, model.device)
        ),
        peft_config=common.adapter(model, method),
        planned=common.in_order(case),
        reference=case.folder / "reference.safetensors",
        passes=common.in_order(case),
    )
    return trainer, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(timing.main(__doc__, measure))

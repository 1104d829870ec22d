"""DPO on the shared-prefix engine against stock DPOTrainer: same model, same pairs, same order."""

import argparse
import sys
import time
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from benchmarks import common, timing
from workflow_scripts.datasets.records import Record
from workflow_scripts.models import loading
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.data import rows
from workflow_scripts.training.data.collators import PreferenceCollator
from workflow_scripts.training.data.features import FeatureStore
from workflow_scripts.training.trainers.dpo import SharedPrefixDPOTrainer, precomputes


class StockTrainer(common.StockOrder, DPOTrainer):
    """TRL's trainer, in the order of the dataset."""


def measure(case: common.Case, options: argparse.Namespace) -> timing.Cell:
    """One cell of the table."""
    dataset = ours(case)
    return timing.measure(
        case,
        lambda: _stock(case, options.method),
        lambda: _engine_with_features(case, dataset, options.method),
        tokens(case, dataset),
        options.repeats,
        options.method,
    )


def ours(case: common.Case) -> Dataset:
    """The pairs as our trainer takes them."""
    return rows.preference_rows(case.write("pairs.jsonl", _pairs(case)), case.dialogue)


def tokens(case: common.Case, dataset: Dataset) -> tuple[int, int]:
    """All tokens of both sides that predict one, and those that differ."""
    total = sum(
        len(row["prompt_ids"]) + len(row[side]) - 2 + case.dialogue.image_tokens(case.side, case.side)
        for row in dataset
        for side in ("chosen_ids", "rejected_ids")
    )
    return total, common.unique_tokens(case, PreferenceCollator(case.processor, case.pixels()), dataset)


def _pairs(case: common.Case) -> list[dict[str, Any]]:
    return [_pair(record) for record in case.records]


def _pair(record: Record) -> dict[str, Any]:
    """A pair of the record's answer and another of like length."""
    question, answer = record["messages"]
    rejected = VERSIONS[common.VERSION].answer_format(common.MODE).write("no such organ")
    return {**record, "messages": [question], "chosen": answer["content"], "rejected": rejected}


def stock(case: common.Case, model: Any, lora: LoraConfig | None, **changes: Any) -> DPOTrainer:
    """TRL's trainer of `model`, with a reference model of its own; `changes` are of its arguments."""
    stop = VERSIONS[common.VERSION].stop_token
    listed = [
        {
            "images": [case.image(pair)],
            "prompt": [{"role": "user", "content": pair["messages"][0]["content"].removeprefix("<image>")}],
            **{
                side: [{"role": "assistant", "content": pair[side] + stop}] for side in ("chosen", "rejected")
            },
        }
        for pair in _pairs(case)
    ]
    return StockTrainer(
        model,
        ref_model=None if lora else common.model(),
        peft_config=lora,
        args=DPOConfig(**common.arguments(case, case.folder / "stock") | changes),
        train_dataset=Dataset.from_list(listed),
        processing_class=case.processor,
    )


def engine(
    case: common.Case,
    dataset: Dataset,
    model: Any,
    lora: LoraConfig | None,
    features: FeatureStore,
    planned: list[list[int]],
    **changes: Any,
) -> DPOTrainer:
    """Our trainer of `model` on the batches `planned`; `changes` are of its arguments."""
    return SharedPrefixDPOTrainer(
        model,
        args=DPOConfig(
            **common.arguments(case, case.folder / "ours") | changes,
            precompute_ref_log_probs=precomputes("lora" if lora else "full"),
        ),
        train_dataset=dataset,
        processing_class=case.processor,
        data_collator=PreferenceCollator(
            case.processor, case.pixels(), features, loading.use_tree_attention(model, model.device)
        ),
        peft_config=lora,
        planned=planned,
        reference=case.folder / "reference.safetensors",
        passes=common.in_order(case),
    )


def _stock(case: common.Case, method: str) -> DPOTrainer:
    model = common.model()
    return stock(case, model, common.adapter(model, method))


def _engine_with_features(case: common.Case, dataset: Dataset, method: str) -> tuple[DPOTrainer, float]:
    """Our trainer, and the seconds of the passes that it makes once: vision features and the reference."""
    model = common.model()
    started = time.perf_counter()
    features = common.kept_features(case.folder, model, case.pixels(), dataset)
    trainer = engine(case, dataset, model, common.adapter(model, method), features, common.in_order(case))
    return trainer, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(timing.main(__doc__, measure))

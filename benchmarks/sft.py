"""SFT on the shared-prefix engine against stock SFTTrainer: same model, same rows, same order."""

import argparse
import sys
import time
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from benchmarks import common, timing
from workflow_scripts.models import loading
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.data import rows
from workflow_scripts.training.data.collators import SftCollator
from workflow_scripts.training.data.features import FeatureStore
from workflow_scripts.training.trainers.sft import SharedPrefixSFTTrainer


class StockTrainer(common.StockOrder, SFTTrainer):
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
    """The rows as our trainer takes them."""
    return rows.sft_rows(case.write("train.jsonl", case.records), case.dialogue)


def tokens(case: common.Case, dataset: Dataset) -> tuple[int, int]:
    """All tokens of the rows that predict one, and those that differ."""
    total = sum(
        len(prompt) + len(completion) - 2 + case.dialogue.image_tokens(case.side, case.side)
        for prompt, completion in zip(dataset["prompt_ids"], dataset["completion_ids"], strict=True)
    )
    return total, common.unique_tokens(case, SftCollator(case.processor, case.pixels()), dataset)


def stock(case: common.Case, model: Any, lora: LoraConfig | None, **changes: Any) -> SFTTrainer:
    """TRL's trainer of `model`; `changes` are of its arguments."""
    stop = VERSIONS[common.VERSION].stop_token
    listed = [
        {
            "images": [case.image(record)],
            "prompt": [{"role": "user", "content": record["messages"][0]["content"].removeprefix("<image>")}],
            "completion": [{"role": "assistant", "content": record["messages"][1]["content"] + stop}],
        }
        for record in case.records
    ]
    trainer = StockTrainer(
        model,
        peft_config=lora,
        args=SFTConfig(**common.arguments(case, case.folder / "stock") | changes),
        train_dataset=Dataset.from_list(listed),
        processing_class=case.processor,
    )
    trainer.model_accepts_loss_kwargs = True
    return trainer


def engine(
    case: common.Case,
    dataset: Dataset,
    model: Any,
    lora: LoraConfig | None,
    features: FeatureStore,
    planned: list[list[int]],
    **changes: Any,
) -> SFTTrainer:
    """Our trainer of `model` on the batches `planned`; `changes` are of its arguments."""
    return SharedPrefixSFTTrainer(
        model,
        args=SFTConfig(
            **common.arguments(case, case.folder / "ours") | changes,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=dataset,
        processing_class=case.processor,
        data_collator=SftCollator(
            case.processor, case.pixels(), features, loading.use_tree_attention(model, model.device)
        ),
        peft_config=lora,
        planned=planned,
    )


def _stock(case: common.Case, method: str) -> SFTTrainer:
    model = common.model()
    return stock(case, model, common.adapter(model, method))


def _engine_with_features(case: common.Case, dataset: Dataset, method: str) -> tuple[SFTTrainer, float]:
    """Our trainer, and the seconds of the pass that it makes once: vision features."""
    model = common.model()
    started = time.perf_counter()
    features = common.kept_features(case.folder, model, case.pixels(), dataset)
    once = time.perf_counter() - started
    return engine(case, dataset, model, common.adapter(model, method), features, common.in_order(case)), once


if __name__ == "__main__":
    sys.exit(timing.main(__doc__, measure))

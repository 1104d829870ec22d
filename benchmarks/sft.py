"""SFT on the shared-prefix engine against stock SFTTrainer: same model, same rows, same order."""

import argparse
import sys
import time

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks import common, timing
from workflow_scripts.models import loading
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.data import rows
from workflow_scripts.training.data.collators import SftCollator
from workflow_scripts.training.trainers.sft import SharedPrefixSFTTrainer


class StockTrainer(common.StockOrder, SFTTrainer):
    """TRL's trainer, in the order of the dataset."""


def measure(case: common.Case, options: argparse.Namespace) -> timing.Cell:
    """One cell of the table."""
    ours = rows.sft_rows(case.write("train.jsonl", case.records), case.dialogue)
    unique = common.unique_tokens(case, SftCollator(case.processor, case.pixels()), ours)
    total = sum(
        len(prompt) + len(completion) - 2 + case.dialogue.image_tokens(case.side, case.side)
        for prompt, completion in zip(ours["prompt_ids"], ours["completion_ids"], strict=True)
    )
    return timing.measure(
        case,
        lambda: stock(case, options.method),
        lambda: engine(case, ours, options.method),
        (total, unique),
        options.repeats,
        options.method,
    )


def stock(case: common.Case, method: str) -> SFTTrainer:
    """TRL's trainer."""
    stop = VERSIONS[common.VERSION].stop_token
    listed = [
        {
            "images": [case.image(record)],
            "prompt": [{"role": "user", "content": record["messages"][0]["content"].removeprefix("<image>")}],
            "completion": [{"role": "assistant", "content": record["messages"][1]["content"] + stop}],
        }
        for record in case.records
    ]
    model = common.model()
    trainer = StockTrainer(
        model,
        peft_config=common.adapter(model, method),
        args=SFTConfig(**common.arguments(case, case.folder / "stock")),
        train_dataset=Dataset.from_list(listed),
        processing_class=case.processor,
    )
    trainer.model_accepts_loss_kwargs = True
    return trainer


def engine(case: common.Case, dataset: Dataset, method: str) -> tuple[SFTTrainer, float]:
    """Our trainer, and the seconds of the pass that it makes once: vision features."""
    model, pixels = common.model(), case.pixels()
    started = time.perf_counter()
    store = common.kept_features(case.folder, model, pixels, dataset)
    once = time.perf_counter() - started
    trainer = SharedPrefixSFTTrainer(
        model,
        args=SFTConfig(
            **common.arguments(case, case.folder / "ours"), dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=dataset,
        processing_class=case.processor,
        data_collator=SftCollator(
            case.processor, pixels, store, loading.use_tree_attention(model, model.device)
        ),
        peft_config=common.adapter(model, method),
        planned=common.in_order(case),
    )
    return trainer, once


if __name__ == "__main__":
    sys.exit(timing.main(__doc__, measure))

"""A corpus of dialogues for one trainer, and a results folder for whole stages."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from dialogues import MODE, Corpus, draw_images, some_records

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS


@pytest.fixture(scope="module", params=["4.1v", "4.5v"])
def corpus(request, tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp(f"corpus-{request.param}")
    records = some_records(request.param, draw_images(folder), questions=4)
    return Corpus(request.param, folder, standins.processor(VERSIONS[request.param]), records)


@dataclass
class Workplace:
    """A results folder with a stand-in of 4.1V and the records of one run, for whole stages on the CPU."""

    layout: Layout
    run: Run
    settings: Config

    @property
    def model(self) -> Path:
        return self.layout.model(self.run.model_version, self.run.mode)

    def write(self, split: str, records: list[dict]) -> None:
        files.write_jsonl(self.layout.split(self.run, split), records)

    def write_pairs(self, records: list[dict]) -> None:
        """The records as pairs, whose images are found from where the pairs lie."""
        path = self.layout.preferences(self.run)
        folder = os.path.relpath(self.layout.data(self.run), path.parent)
        write = VERSIONS[self.run.model_version].answer_format(MODE).write
        files.write_jsonl(
            path,
            [
                {
                    **record,
                    "images": [f"{folder}/{name}" for name in record["images"]],
                    "messages": record["messages"][:-1],
                    "chosen": record["messages"][-1]["content"],
                    "rejected": write("nothing of it"),
                }
                for record in records
            ],
        )


@pytest.fixture(scope="session")
def standin(tmp_path_factory) -> Path:
    """A stand-in of 4.1V, to be copied."""
    folder = tmp_path_factory.mktemp("standin")
    standins.save(VERSIONS["4.1v"], MODE, folder)
    return folder


@pytest.fixture
def workplace(tmp_path, standin) -> Workplace:
    run = Run("rad", "4.1v", MODE)
    layout = Layout(tmp_path / "results")
    layout.data(run).mkdir(parents=True)
    shutil.copytree(standin, layout.model(run.model_version, MODE))
    common = {
        "gpus": 0,
        "gradient_checkpointing": False,
        "log_steps": 1,
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
        "batch_size": 4,
        "images_per_step": 1,
        "epochs": 2,
    }
    settings = Config.model_validate({"sft": common, "dpo": common, "tracking": []})
    place = Workplace(layout, run, settings)
    images = draw_images(layout.data(run))
    for seed, split in enumerate(("train", "validation")):
        place.write(split, some_records(run.model_version, images, questions=4, seed=seed))
    place.write_pairs(some_records(run.model_version, images, questions=4))
    return place

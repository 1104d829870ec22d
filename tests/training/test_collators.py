"""Our batches equal those of TRL's own collators, which see the same dialogues."""

import pytest
import torch
from PIL import Image
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from workflow_scripts import files
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training import rows
from workflow_scripts.training.collators import PreferenceCollator, SftCollator

VERSION, MODE = "4.1v", "thinking"
STOP = VERSIONS[VERSION].stop_token


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, size in (("a.png", (112, 112)), ("b.png", (200, 80))):
        Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB").save(folder / name)
    return folder


@pytest.fixture(scope="module")
def processor():
    return standins.processor(VERSIONS[VERSION])


def write(name: str, thought: str = "") -> str:
    return VERSIONS[VERSION].answer_format(MODE).write(name, thought)


QUESTIONS = [
    ("a.png", "What is it?", "A chest"),
    ("b.png", "Is there a nodule in the left lung?", "No"),
    ("a.png", "?", "X"),
]


def test_sft_batches_equal_trl(folder, processor):
    records = [
        {
            "id": str(number),
            "images": [image],
            "messages": [
                {"role": "user", "content": f"<image>{question}"},
                {"role": "assistant", "content": write(answer, "It is so.")},
            ],
        }
        for number, (image, question, answer) in enumerate(QUESTIONS)
    ]
    files.write_jsonl(folder / "train.jsonl", records)
    dataset = rows.sft_rows(folder / "train.jsonl", Dialogue(processor, VERSION, MODE))
    ours = SftCollator(processor, Pixels(processor.image_processor))(list(dataset))
    stock = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(
        [
            {
                "images": [Image.open(folder / image)],
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": write(answer, "It is so.") + STOP}],
            }
            for image, question, answer in QUESTIONS
        ]
    )
    _assert_equal(ours, stock)


def test_preference_batches_equal_trl(folder, processor):
    records = [
        {
            "id": str(number),
            "images": [image],
            "messages": [{"role": "user", "content": f"<image>{question}"}],
            "chosen": write(answer),
            "rejected": write("Something else entirely"),
        }
        for number, (image, question, answer) in enumerate(QUESTIONS)
    ]
    files.write_jsonl(folder / "pairs.jsonl", records)
    dataset = rows.preference_rows(folder / "pairs.jsonl", Dialogue(processor, VERSION, MODE))
    ours = PreferenceCollator(processor, Pixels(processor.image_processor))(list(dataset))
    stock = DataCollatorForVisionPreference(processor)(
        [
            {
                "images": [Image.open(folder / image)],
                "prompt": [{"role": "user", "content": question}],
                "chosen": [{"role": "assistant", "content": write(answer) + STOP}],
                "rejected": [{"role": "assistant", "content": write("Something else entirely") + STOP}],
            }
            for image, question, answer in QUESTIONS
        ]
    )
    _assert_equal(ours, stock)


def _assert_equal(ours: dict, stock: dict) -> None:
    assert set(ours) == set(stock)
    for name, tensor in stock.items():
        assert torch.equal(ours[name], tensor), name


def test_an_image_shared_by_rows_is_processed_once(folder, processor):
    seen = []

    class Counting:
        merge_size = processor.image_processor.merge_size

        def __call__(self, images, **kwargs):
            seen.append(len(images))
            return processor.image_processor(images, **kwargs)

    pixels = Pixels(Counting())
    rows_ = [
        {
            "prompt_ids": [processor.image_token_id, 5],
            "completion_ids": [6],
            "images": [str(folder / "a.png")],
        }
    ] * 3
    SftCollator(processor, pixels)(rows_)
    assert seen == [1]

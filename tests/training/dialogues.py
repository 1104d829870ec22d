"""The same dialogues in two forms: as our records, and as the rows that stock TRL takes."""

import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.common import WORDS
from workflow_scripts.base import files
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training.data import rows

MODE = "thinking"


@dataclass
class Corpus:
    """Dialogues on a few images for one model version, with everything that training them takes."""

    version: str
    folder: Path
    processor: object
    records: list[dict]

    @property
    def dialogue(self) -> Dialogue:
        return Dialogue(self.processor, self.version, MODE)

    @property
    def stop(self) -> str:
        return VERSIONS[self.version].stop_token

    def collator(self) -> dict:
        return {"processor": self.processor, "pixels": Pixels(self.processor.image_processor)}

    def sft(self):
        """Our rows, and stock TRL's in the same order."""
        path = self.folder / "train.jsonl"
        files.write_jsonl(path, self.records)
        return rows.sft_rows(path, self.dialogue), [
            {
                "images": self._images(messages[:turn], record["images"]),
                "prompt": _plain(self.dialogue.history(messages[:turn])),
                "completion": [{"role": "assistant", "content": messages[turn]["content"] + self.stop}],
            }
            for record in self.records
            for messages in [record["messages"]]
            for turn in range(1, len(messages), 2)
        ]

    def pairs(self):
        """The last turn of each record as a pair; ours, and stock TRL's in the same order."""
        made = [
            {
                **record,
                "messages": record["messages"][:-1],
                "chosen": record["messages"][-1]["content"],
                "rejected": VERSIONS[self.version].answer_format(MODE).write(f"not {number}"),
            }
            for number, record in enumerate(self.records)
        ]
        path = self.folder / "pairs.jsonl"
        files.write_jsonl(path, made)
        return rows.preference_rows(path, self.dialogue), [
            {
                "images": self._images(record["messages"], record["images"]),
                "prompt": _plain(self.dialogue.history(record["messages"])),
                **{
                    side: [{"role": "assistant", "content": record[side] + self.stop}]
                    for side in ("chosen", "rejected")
                },
            }
            for record in made
        ]

    def _images(self, messages: list[dict], names: list[str]) -> list[Image.Image]:
        seen = sum(message["content"].count("<image>") for message in messages)
        return [Image.open(self.folder / name).copy() for name in names[:seen]]


def _plain(messages: list[dict]) -> list[dict]:
    """TRL puts the images before the first text itself."""
    return [{**message, "content": message["content"].replace("<image>", "")} for message in messages]


def draw_images(folder: Path) -> list[str]:
    chance = random.Random(0)
    names = []
    for number, size in enumerate(((112, 112), (200, 80), (112, 140))):
        image = Image.effect_mandelbrot(size, (-2 + number / 3, -1, 1, 1), 40 + 10 * number).convert("RGB")
        image.putpixel((3, 4), (chance.randrange(256), 0, 0))
        names.append(f"{number}.png")
        image.save(folder / names[-1])
    return names


def some_records(version: str, images: list[str], questions: int, seed: int = 0) -> list[dict]:
    """`questions` on each image, one dialogue of two turns and one with two images."""
    chance = random.Random(seed)
    write = VERSIONS[version].answer_format(MODE).write

    def turn(placeholder: str = "") -> list[dict]:
        question = " ".join(chance.choices(WORDS, k=chance.randint(2, 9)))
        answer = write(chance.choice(WORDS), "Think: " + " ".join(chance.choices(WORDS, k=3)))
        return [
            {"role": "user", "content": placeholder + question},
            {"role": "assistant", "content": answer},
        ]

    records = [
        {"id": f"{image}-{number}", "images": [image], "messages": turn("<image>")}
        for image in images
        for number in range(questions)
    ]
    records.append({"id": "turns", "images": images[:1], "messages": turn("<image>") + turn()})
    records.append({"id": "two", "images": images[:2], "messages": turn("<image><image>")})
    chance.shuffle(records)
    return records

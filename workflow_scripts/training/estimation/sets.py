"""How many rows, images and tokens a data set would train on: of converted records, else as the set was published."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, Source, Training
from workflow_scripts.models.sizes import Size

SETS = Path(__file__).with_name("sets.yaml")
# The family's tokenizer has 151,329 words: about four and a half English characters a token, one and a half Chinese.
ENGLISH, CHINESE = 4.5, 1.5
MARKS = 12  # tokens of a row beside its texts: roles, tags of thought and answer, the stop token
ANSWER = 12  # of these and the answer, what the loss is on


@dataclass(frozen=True)
class Rows:
    """What one epoch trains on; `source` says where the counts are from. `text` are a row's own tokens, on average.

    `image` are the tokens of an image on average, `largest` those of the largest.
    """

    rows: int
    images: int
    text: float
    image: float
    largest: int
    source: str

    @property
    def per_image(self) -> float:
        return self.rows / max(1, self.images)

    def unique_tokens(self, together: int) -> float:
        """Tokens that the engine runs in an epoch, `together` rows of an image at a time at most."""
        passes = self.rows / max(1.0, min(together, self.per_image))
        return passes * self.image + self.rows * self.text

    def tokens_of_rows(self, rows: float, together: int) -> float:
        """Unique tokens of a batch of `rows`, whose images are the largest."""
        return rows / max(1.0, min(together, self.per_image)) * self.largest + rows * self.text


def together(settings: Training) -> int:
    """How many rows of one image `settings` let run together."""
    return max(1, min(settings.rows_per_image, settings.batch_size // settings.images_per_step or 1))


def of_run(settings: Config, layout: Layout, run: Run, size: Size) -> Rows:
    """The train rows of `run`; a UserError where its set is neither converted nor published."""
    side = settings.data.max_image_side
    converted = layout.split(run, "train")
    if converted.is_file():
        return _converted(converted, size, side)
    return as_published(settings, run, size)


def as_published(settings: Config, run: Run, size: Size) -> Rows:
    """The train rows of `run` as its sets were published, without a look at what is converted; a UserError as above."""
    side = settings.data.max_image_side
    parts = [
        _published(_counts(), source, name, run, size, side)
        for name, source in settings.sources(run.dataset).items()
    ]
    return _sum(parts)


@cache
def _counts() -> dict[str, Any]:
    counts: dict[str, Any] = files.read_yaml(SETS)
    return counts


def _converted(path: Path, size: Size, side: int) -> Rows:
    rows, characters, images = 0, 0.0, set()
    for record in files.read_jsonl(path):
        rows += 1
        images.update(record["images"])
        characters += _tokens(record["question"] + record["answer"])
    largest = size.image_tokens(side)
    text = characters / max(1, rows) + MARKS
    return Rows(rows, len(images), text, largest, largest, f"{path}; images at their largest")


def _published(known: dict[str, Any], source: Source, name: str, run: Run, size: Size, side: int) -> Rows:
    if source.reader not in known or source.embedded or source.path:
        raise UserError(
            f"{name}: no count of its rows is published; convert it first: python -m workflow_scripts.convert --dataset "
            f"{run.dataset} --model_version {run.model_version} --mode {run.mode}"
        )
    entry = known[source.reader]
    language = source.languages[0] if len(source.languages) == 1 else "all"
    counts = entry.get(language, entry["all"])
    width = {"zh": CHINESE, "en": ENGLISH}.get(language, ENGLISH)
    text = counts["characters"] / width + MARKS
    if language == "all" and "zh" in entry:
        spoken = [entry["en"]["characters"] / ENGLISH, entry["zh"]["characters"] / CHINESE]
        text = sum(spoken) / 2 + MARKS
    tokens = [size.image_tokens(min(side, each)) for each in entry["sides"]]
    image = sum(tokens) / len(tokens)
    return Rows(
        counts["rows"], counts["images"], text, image, max(tokens), "published counts, nothing was read"
    )


def _sum(parts: Sequence[Rows]) -> Rows:
    rows, images = sum(part.rows for part in parts), sum(part.images for part in parts)
    return Rows(
        rows=rows,
        images=images,
        text=sum(part.text * part.rows for part in parts) / rows,
        image=sum(part.image * part.images for part in parts) / images,
        largest=max(part.largest for part in parts),
        source=parts[0].source,
    )


def _tokens(text: str) -> float:
    wide = sum(ord(letter) > 0x2E80 for letter in text)  # Chinese, Japanese, Korean
    return wide / CHINESE + (len(text) - wide) / ENGLISH

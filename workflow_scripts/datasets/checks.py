"""What is wrong with records on disk: each kind of problem with the places where it was seen."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts import files
from workflow_scripts.datasets.images import image_size
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, SPLITS
from workflow_scripts.errors import UserError

Text = Annotated[str, Field(min_length=1)]
Problems = dict[str, list[str]]  # places by kind; the functions below add to a defaultdict(list)


class Message(BaseModel):
    """One turn of a dialogue."""

    model_config = ConfigDict(strict=True)

    role: Literal["user", "assistant"]
    content: Text


class Record(BaseModel):
    """What every line of a split must have; further keys are left alone."""

    model_config = ConfigDict(strict=True)

    messages: list[Message] = Field(min_length=2)
    images: list[Text] = Field(min_length=1)
    id: Text
    source: Text
    split: Literal[SPLITS]
    image_id: Text
    question: Text
    answer: Text
    answer_type: Literal["open", "closed"]
    yes_no: bool
    question_type: str
    language: Literal["en", "zh"]
    modality: str
    organ: str


@dataclass(frozen=True)
class Row:
    """A record, the split whose file it stands in, and `place`: file, line and id."""

    place: str
    split: str
    record: dict


@dataclass(frozen=True)
class Picture:
    """An image file: what it holds, however it is named, and how many tokens it takes."""

    digest: str
    tokens: int


def read(path: Path, split: str, errors: Problems) -> list[Row]:
    """The lines of a split that are records; the others become errors."""
    rows = []
    for number, line in enumerate(lines(path), start=1):
        place = f"{path.name}:{number}"
        try:
            record = json.loads(line)
            Record.model_validate(record)
        except ValidationError as error:
            errors["not a record"].append(f"{place}: {describe(error)}")
        except ValueError as error:
            errors["not JSON"].append(f"{place}: {error}")
        else:
            row = Row(f"{place} ({record['id']})", split, record)
            rows.append(row)
            if record["split"] != split:
                errors["in the file of another split"].append(f"{row.place}: split is {record['split']}")
    return rows


def lines(path: Path) -> list[bytes]:
    """The lines of a file that conversion wrote."""
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; convert the set first") from None


def describe(error: ValidationError) -> str:
    """A schema error as "key: what is wrong with it; …"."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'line'}: {item['msg']}" for item in error.errors())


def check_summary(folder: Path, stated: dict, errors: Problems) -> None:
    """Whether summary.json (`stated`) tells of these very files."""
    splits = [folder / f"{split}.jsonl" for split in SPLITS]
    rows = {path.stem: len(lines(path)) for path in splits}
    dropped = Counter(row.get("reason") for row in files.read_jsonl(folder / "dropped.jsonl"))
    found = {
        "read": sum(rows.values()) + dropped.total(),
        "kept": sum(rows.values()),
        "dropped": dict(dropped),
        "rows": rows,
        "fingerprint": files.fingerprint([files.sha256(path) for path in splits]),
    }
    for key, value in found.items():
        if stated.get(key) != value:
            errors["summary.json tells of other files"].append(
                f"{key}: it says {stated.get(key)}, found {value}"
            )


def check_ids(rows: list[Row], errors: Problems) -> None:
    """No id may stand twice, be it in another split."""
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(row.record["id"], row)
        if earlier is not row:
            errors["duplicate id"].append(f"{row.place}: as in {earlier.place}")


def dialogue_problem(messages: list[dict], images: list[str], last: str) -> tuple[str, str] | None:
    """(kind, detail) where roles do not alternate from user to `last` or placeholders miss the images."""
    roles = [message["role"] for message in messages]
    if roles != [("user", "assistant")[turn % 2] for turn in range(len(roles))] or roles[-1] != last:
        return f"roles do not alternate from user to {last}", ", ".join(roles)
    asked, said = (
        sum(message["content"].count(IMAGE_PLACEHOLDER) for message in messages if message["role"] == role)
        for role in ("user", "assistant")
    )
    if asked != len(images) or said:
        detail = f"{len(images)} image(s), {asked} in user turns, {said} in assistant turns"
        return f"{IMAGE_PLACEHOLDER} does not stand once per image in the user's turns", detail
    return None


def pictures(
    rows: list[Row], folder: Path, image_tokens: Callable[[int, int], int], errors: Problems
) -> dict[str, Picture]:
    """Each distinct image by its path in the records, without decoding it; a bad one is one error.

    `image_tokens` takes width and height and raises ValueError for a shape that the model does not take.
    """
    found = {}
    first_use = {image: row for row in reversed(rows) for image in row.record["images"]}
    for image, row in reversed(first_use.items()):
        path = folder / image
        if not path.is_file():
            errors["missing image"].append(f"{row.place}: {image}")
            continue
        try:
            found[image] = Picture(files.sha256(path), image_tokens(*image_size(path)))
        except UserError as error:
            errors["unreadable image"].append(f"{row.place}: {error}")
        except ValueError as error:
            errors["image of a shape that the model does not take"].append(f"{row.place}: {image}: {error}")
    return found


def warn_of_duplicates(rows: list[Row], known: dict[str, Picture], warnings: Problems) -> None:
    """Rows of one split that ask and answer the same of the same image."""
    first: dict[tuple, Row] = {}
    for row in rows:
        images = tuple(known[image].digest for image in row.record["images"])
        earlier = first.setdefault((row.split, images, row.record["question"], row.record["answer"]), row)
        if earlier is not row:
            warnings["same image, question and answer"].append(f"{row.place}: as in {earlier.place}")


def warn_of_shared_images(rows: list[Row], known: dict[str, Picture], warnings: Problems) -> None:
    """Train images in another split, compared by what they hold: a second name hides nothing."""
    trained = {known[image].digest for row in rows if row.split == "train" for image in row.record["images"]}
    for split in ("validation", "test"):
        mine = [row for row in rows if row.split == split]
        shared = [
            (row.place, image)
            for row in mine
            for image in row.record["images"]
            if known[image].digest in trained
        ]
        if shared:
            affected = len({place for place, _ in shared})
            kind = f"image in train and {split} ({affected:,} of {len(mine):,} {split} rows)"
            warnings[kind] += dict.fromkeys(image for _, image in shared)

"""What is wrong with records on disk: each kind of problem with the places where it was seen."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.base.paths import DROPPED, SUMMARY
from workflow_scripts.datasets import records
from workflow_scripts.datasets.pictures import near_duplicates
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.pictures.images import image_size
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, SPLITS, PreferencePair, Split

Text = Annotated[str, Field(min_length=1)]
LISTED = 20  # examples that are kept of each kind of problem


class Problems:
    """How often each kind of problem was seen, and the first places: no more is kept, however many there are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, place: str, always: bool = False) -> None:
        """Count `place` under `kind`; it is kept among the first, or `always`, as of files that are to be mended."""
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if always or len(examples) < LISTED:
            examples.append(place)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def lines(self) -> list[str]:
        """Each kind with its count, its examples below it."""
        found = []
        for kind, examples in self._examples.items():
            found += [f"  {kind}: {self._counts[kind]}", *(f"    {example}" for example in examples)]
        return found

    def total(self) -> int:
        return self._counts.total()

    def listed(self) -> list[dict[str, Any]]:
        """{"kind", "count", "examples"} of each kind, in the order of their first places."""
        return [
            {"kind": kind, "count": self._counts[kind], "examples": examples}
            for kind, examples in self._examples.items()
        ]


class MessageSchema(BaseModel):
    """One turn of a dialogue."""

    model_config = ConfigDict(strict=True)

    role: Literal["user", "assistant"]
    content: Text


class RecordSchema(BaseModel):
    """What every line of a split must have; further keys are left alone."""

    model_config = ConfigDict(strict=True)

    messages: list[MessageSchema] = Field(min_length=2)
    images: list[Text] = Field(min_length=1)
    id: Text
    source: Text
    split: Split
    image_id: Text
    question: Text
    answer: Text
    answer_type: Literal["open", "closed"]
    yes_no: bool
    question_type: str
    language: Literal["en", "zh"]
    modality: str
    organ: str
    linked_id: str


@dataclass(frozen=True, slots=True)
class PlacedRecord:
    """A record, the split whose file it stands in, its line there, and `place`: file, line and id."""

    place: str
    split: str
    line: int
    record: records.Record


@dataclass(slots=True)
class Picture:
    """An image file: what it holds, however it is named, and how many tokens it takes.

    `name` is its path in the records, `place` the first row that shows it, `splits` those of all such rows.
    """

    name: str
    path: Path
    digest: str
    tokens: int
    place: str
    splits: set[str] = field(default_factory=set)


def read(path: Path, split: str, errors: Problems) -> Iterator[PlacedRecord]:
    """The lines of a split that are records, one by one; the others become errors."""
    for number, line in enumerate(lines(path), start=1):
        place = f"{path.name}:{number}"
        try:
            record = files.parse_json(line.decode())
            RecordSchema.model_validate(record)
        except ValidationError as error:
            errors.add("not a record", f"{place}: {describe(error)}")
        except ValueError as error:
            errors.add("not JSON", f"{place}: {error}")
        else:
            row = PlacedRecord(f"{place} ({record['id']})", split, number, record)
            if record["split"] != split:
                errors.add("in the file of another split", f"{row.place}: split is {record['split']}")
            yield row


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that conversion wrote, one by one."""
    try:
        with open(path, "rb") as file:
            yield from file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; convert the set first") from None


def describe(error: ValidationError) -> str:
    """A schema error as "key: what is wrong with it; …"."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'line'}: {item['msg']}" for item in error.errors())


def check_summary(folder: Path, stated: dict[str, Any], copies: int, errors: Problems) -> None:
    """Whether summary.json (`stated`) tells of these very files, `copies` of whose lines are further ones of a row.

    What was read is either kept or dropped with a reason, and mixing may keep a row more than once.
    """
    splits = [folder / f"{split}.jsonl" for split in SPLITS]
    rows = {path.stem: sum(1 for _ in lines(path)) for path in splits}
    dropped = Counter(
        str(row.get("reason")) if isinstance(row, dict) else "no row"
        for row in files.read_jsonl(folder / DROPPED)
    )
    kept = sum(rows.values())
    found = {
        "read": kept - copies + dropped.total(),
        "kept": kept,
        "copies": copies,
        "dropped": dict(dropped),
        "rows": rows,
        "fingerprint": files.fingerprint([files.sha256(path) for path in splits]),
    }
    for key, value in found.items():
        if stated.get(key) != value:
            errors.add(f"{SUMMARY} tells of other files", f"{key}: it says {stated.get(key)}, found {value}")


def dialogue_problem(
    messages: Sequence[records.Message], images: Sequence[str], last: str
) -> tuple[str, str] | None:
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


def pair_problem(pair: PreferencePair, same: Callable[[str, str], bool]) -> tuple[str, str] | None:
    """(kind, detail) where the dialogue of a preference pair is not in order or both its answers say the `same`."""
    if problem := dialogue_problem(pair["messages"], pair["images"], last="user"):
        return problem
    if same(pair["chosen"], pair["rejected"]):
        return "rejected says the same as chosen", f"{shown(pair['rejected'])}, {shown(pair['chosen'])}"
    return None


class Pictures:
    """Each distinct image by its path in the records, its head read once; a bad one is one error.

    `image_tokens` takes width and height and raises ValueError for a shape that the model does not take.
    """

    def __init__(
        self,
        folder: Path,
        image_tokens: Callable[[int, int], int],
        errors: Problems,
        warnings: Problems,
        frames: FrameRule = FRAMES,
    ) -> None:
        self._folder, self._image_tokens, self._frames = folder, image_tokens, frames
        self._errors, self._warnings = errors, warnings
        self._known: dict[str, Picture | None] = {}

    def of(self, row: PlacedRecord) -> list[Picture | None]:
        """The pictures that a row shows, None for a bad one."""
        found = [self._picture(image, row) for image in row.record["images"]]
        for picture in filter(None, found):
            picture.splits.add(row.split)
        return found

    def good(self) -> list[Picture]:
        """All pictures so far, in the order of their first rows."""
        return [picture for picture in self._known.values() if picture]

    def _picture(self, image: str, row: PlacedRecord) -> Picture | None:
        if image not in self._known:
            self._known[image] = self._examine(image, row)
        return self._known[image]

    def _examine(self, image: str, row: PlacedRecord) -> Picture | None:
        path = self._folder / image
        if not os.path.isfile(path):
            self._errors.add("missing image", f"{row.place}: {image}", always=True)
            return None
        try:
            return Picture(
                image,
                path,
                files.sha256(path),
                self._image_tokens(*image_size(path, self._frames)),
                row.place,
            )
        except UserError as error:
            self._errors.add("unreadable image", f"{row.place}: {error}", always=True)
        except OSError as error:
            self._errors.add("unreadable image", f"{row.place}: {path}: {error.strerror}", always=True)
        except ValueError as error:
            self._errors.add(
                "image of a shape that the model does not take", f"{row.place}: {image}: {error}", always=True
            )
        return None

    def decode(self) -> dict[str, bytes]:
        """The difference hash of each distinct content; one that cannot be decoded whole is an error.

        A picture of a single level, with nothing to see in it, is a warning.
        """
        shown: dict[str, list[Picture]] = {}
        for picture in self.good():
            shown.setdefault(picture.digest, []).append(picture)
        by_path = {pictures[0].path: pictures for pictures in shown.values()}
        found = {}
        for path, outcome in near_duplicates.decode(by_path, self._frames):
            same = by_path[path]
            if isinstance(outcome, UserError):
                for picture in same:
                    named = str(outcome).replace(str(path), str(picture.path))
                    self._errors.add("unreadable image", f"{picture.place}: {named}", always=True)
                continue
            found[same[0].digest] = outcome.bits
            if outcome.blank:
                for picture in same:
                    self._warnings.add(
                        "image of a single level, which shows nothing",
                        f"{picture.place}: {picture.name}",
                        always=True,
                    )
        return found

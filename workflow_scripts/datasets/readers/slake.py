"""SLAKE: bilingual questions in train.json, validate.json (validation.json on the hub) and test.json."""

import ast
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.datasets.readers.fields import objects, open_or_closed, optional, text
from workflow_scripts.datasets.records import Example
from workflow_scripts.errors import UserError
from workflow_scripts.files import read_json

_SPLIT_FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}


def read(root: Path) -> Iterator[Example]:
    """Every row of the set under `root` or `root`/Slake1.0; a missing file or bad row is a UserError."""
    home = next((place for place in (root, root / "Slake1.0") if (place / "train.json").exists()), None)
    if home is None:
        raise UserError(f"{root}: no SLAKE here; looked for train.json and Slake1.0/train.json")
    for split, names in _SPLIT_FILES.items():
        path = next((home / name for name in names if (home / name).exists()), None)
        if path is None:
            raise UserError(f"{home}: SLAKE's {split} split is missing; looked for {' and '.join(names)}")
        for number, row in enumerate(objects(read_json(path), path), start=1):
            yield _example(row, split, home.relative_to(root) / "imgs", f"{path}: row {number}")


def _example(row: dict, split: str, images: Path, where: str) -> Example:
    language, name = text(row, "q_lang", where), text(row, "img_name", where)
    return Example(
        id=f"slake-{language}-{text(row, 'qid', where)}",
        source="slake",
        split=split,
        image=(images / name).as_posix(),
        image_id=name.split("/")[0],
        question=text(row, "question", where),
        answer=text(row, "answer", where),
        answer_type=open_or_closed(row, where),
        question_type=optional(row, "content_type", where),
        language=language,
        modality=optional(row, "modality", where),
        organ=optional(row, "location", where),
        facts={"triple": _triple(row, where), "base_type": optional(row, "base_type", where)},
    )


def _triple(row: dict, where: str) -> list[str]:
    """The row's [head, relation, tail]; edited copies of the set write the list as a string."""
    triple = row.get("triple", [])
    try:
        triple = ast.literal_eval(triple) if isinstance(triple, str) else triple
    except (ValueError, SyntaxError):
        pass
    if not isinstance(triple, list):
        raise UserError(f"{where}: 'triple' is {triple!r}, not a list of three strings")
    return triple

"""SLAKE: bilingual questions in train.json, validate.json (validation.json on the hub) and test.json.

Beside each image lie its mask, whose grey levels mask.txt names, and the boxes of what it shows; both may be empty.
KG/ is the knowledge graph that the questions of base type `kvqa` draw on.
"""

import ast
import csv
import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from workflow_scripts.base import text_files
from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.base.files import read_json
from workflow_scripts.datasets.readers.fields import (
    Row,
    dialogue,
    objects,
    open_or_closed,
    optional,
    text,
    tidy,
    verbatim,
)
from workflow_scripts.datasets.readers.refusals import Refusals
from workflow_scripts.datasets.records import Example

_SPLIT_FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}


def read(root: Path) -> Iterator[Example]:
    """Every row of the set under `root` or `root`/Slake1.0; missing files and bad rows make one UserError.

    `facts` has the row's triple and base type and, where the image's detection.json is there, its boxes:
    [{"label": "Liver", "box": [x, y, width, height]}, ...] in pixels from the top left.
    """
    home = _home(root)
    images = home.relative_to(root) / "imgs"
    beside_image = cache(partial(_beside_image, root))
    refusals = Refusals()
    for split, names in _SPLIT_FILES.items():
        with refusals.collecting():
            path = next((home / name for name in names if (home / name).exists()), None)
            if path is None:
                raise UserError(f"{home}: SLAKE's {split} split is missing; looked for {' and '.join(names)}")
            for number, row in enumerate(objects(read_json(path), path), start=1):
                where = f"{path}: row {number}"
                if "questions" in row:
                    raise UserError(
                        f"{where}: questions nested by image, as in an edited copy; fetch Slake1.0 itself"
                    )
                with refusals.collecting():
                    image = images / text(row, "img_name", where)
                    yield _example(row, split, image, *beside_image(image.parent), where)
    refusals.end()


def _home(root: Path) -> Path:
    for home in (root, root / "Slake1.0"):
        if (home / "train.json").exists():
            return home
    raise UserError(f"{root}: no SLAKE here; looked for train.json and Slake1.0/train.json")


def _example(row: Row, split: str, image: Path, mask: str, facts: dict[str, Any], where: str) -> Example:
    language = text(row, "q_lang", where)
    if language not in ("en", "zh"):
        raise UserError(f"{where}: 'q_lang' is {shown(language)}, neither en nor zh; correct the row")
    return Example(
        id=f"slake-{language}-{text(row, 'qid', where)}",
        source="slake",
        split=split,
        image=image.as_posix(),
        image_id=image.parent.name,
        **dialogue(verbatim(row, "question", where), verbatim(row, "answer", where)),
        answer_type=open_or_closed(row, where),
        question_type=optional(row, "content_type", where),
        language=language,
        modality=optional(row, "modality", where),
        organ=optional(row, "location", where),
        mask=mask,
        facts={"triple": _triple(row, where), "base_type": optional(row, "base_type", where), **facts},
    )


def _beside_image(root: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """(the mask or "", {"boxes": ...} or {}) of the image in `folder`, which is relative to `root`."""
    mask, boxes = folder / "mask.png", root / folder / "detection.json"
    facts = {"boxes": list(_boxes(boxes))} if os.path.isfile(boxes) else {}
    return mask.as_posix() if os.path.isfile(root / mask) else "", facts


def _boxes(path: Path) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(objects(read_json(path), path), start=1):
        for label, box in item.items():
            if not isinstance(box, list) or [type(side) for side in box] not in ([int] * 4, [float] * 4):
                raise UserError(
                    f"{path}: box {number}, '{label}', is {shown(box)}, not [x, y, width, height]; fetch it again"
                )
            yield {"label": label, "box": box}


def _triple(row: Row, where: str) -> list[str]:
    """The row's [head, relation, tail]; edited copies of the set write the list as a string."""
    triple = row.get("triple", [])
    try:
        triple = ast.literal_eval(triple) if isinstance(triple, str) else triple
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # all that literal_eval raises
        pass
    if not isinstance(triple, list):
        raise UserError(f"{where}: 'triple' is {shown(triple)}, not a list of three strings")
    return triple


def knowledge(root: Path) -> Iterator[dict[str, str]]:
    """The knowledge graph: {"language", "graph", "head", "relation", "tail"} of each line of KG/*.csv.

    `graph` is organ, organ_rel or disease. The English files are divided by #, the Chinese ones by commas, of
    which a full-width one is a mark within the text; nothing is quoted. A line without three parts is a UserError.
    """
    for path in sorted((_home(root) / "KG").glob("*.csv")):
        graph = path.stem.removeprefix("en_")
        language = "zh" if graph == path.stem else "en"
        with text_files.opened(path, newline="") as file:
            lines = csv.reader(file, delimiter="#" if language == "en" else ",", quoting=csv.QUOTE_NONE)
            next(lines, None)  # the names of the columns
            for number, parts in enumerate(lines, start=2):
                if len(parts) != 3:
                    raise UserError(f"{path}:{number}: {len(parts)} parts, not three; fetch it again")
                head, relation, tail = map(tidy, parts)
                yield {
                    "language": language, "graph": graph, "head": head, "relation": relation, "tail": tail
                }  # fmt: skip

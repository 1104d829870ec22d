"""VQA-RAD: the public JSON with its image folder, or the hub's parquet files.

The set has no validation split. `answer_type` is the file's own; the parquet files state none, and there
a closed question is one that is answered yes or no. The two definitions disagree on 21 test rows.
"""

from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.datasets.readers import parquet
from workflow_scripts.datasets.readers.fields import objects, open_or_closed, optional, text
from workflow_scripts.datasets.records import Example
from workflow_scripts.errors import UserError
from workflow_scripts.files import read_json

_ANNOTATIONS = "VQA_RAD Dataset Public.json"
_IMAGES = "VQA_RAD Image Folder"
_MISSPELT = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def read(root: Path) -> Iterator[Example]:
    """Every row of the set under `root`; a missing file or bad row is a UserError."""
    path = root / _ANNOTATIONS
    if path.exists():
        for number, row in enumerate(objects(read_json(path), path), start=1):
            yield _example(row, f"{path}: row {number}")
    elif parquet.is_hub_layout(root):
        yield from parquet.examples(root, "rad", ("train", "test"))
    else:
        raise UserError(f"{root}: no VQA-RAD here; looked for '{_ANNOTATIONS}' and {parquet.PATTERN}")


def _example(row: dict, where: str) -> Example:
    phrase_type, name = text(row, "phrase_type", where), text(row, "image_name", where)
    facts = {"qid_linked_id": optional(row, "qid_linked_id", where), "phrase_type": phrase_type}
    return Example(
        id=f"rad-{text(row, 'qid', where)}",
        source="rad",
        split="test" if phrase_type.startswith("test_") else "train",
        image=f"{_IMAGES}/{name}",
        image_id=Path(name).stem,
        question=text(row, "question", where),
        answer=text(row, "answer", where),
        answer_type=open_or_closed(row, where),
        question_type=_question_type(optional(row, "question_type", where)),
        organ=optional(row, "image_organ", where),
        facts={key: fact for key, fact in facts.items() if fact},
    )


def _question_type(stated: str) -> str:
    """One spelling of each type; several are joined in alphabetical order: "POS, PRES"."""
    types = {_MISSPELT.get(name, name) for name in stated.upper().replace(" ", "").split(",")}
    return ", ".join(sorted(types))

"""PathVQA: the original pickles beside their images, or the hub's parquet files.

The pickles call an answer yes/no, number or other; a closed question is one that is answered yes or no. A pickle can
run code as it is loaded, so these are read with all names forbidden: lists, dictionaries, strings and numbers need none.
"""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NoReturn

from workflow_scripts.base.errors import UserError, brief, shown
from workflow_scripts.datasets.readers import parquet
from workflow_scripts.datasets.readers.fields import Row, dialogue, objects, optional, text, verbatim
from workflow_scripts.datasets.readers.refusals import Refusals
from workflow_scripts.datasets.records import SPLITS, Example

_ANSWER_TYPES = {"yes/no": "closed", "number": "open", "other": "open"}
_SPLIT_NAMES = {"train": "train", "validation": "val", "test": "test"}


def read(root: Path) -> Iterator[Example]:
    """Every row of the set under `root`; missing files and bad rows make one UserError."""
    home = next((home for home in (root, root / "pvqa") if (home / "qas/train_vqa.pkl").exists()), None)
    if home:
        yield from _originals(root, home)
    elif parquet.is_hub_layout(root):
        for example in parquet.examples(root, "pathvqa", SPLITS):
            yield replace(example, question_type=_first_word(example.question))
    else:
        looked_for = f"qas/train_vqa.pkl, pvqa/qas/train_vqa.pkl and {parquet.PATTERN}"
        raise UserError(f"{root}: no PathVQA here; looked for {looked_for}")


def _originals(root: Path, home: Path) -> Iterator[Example]:
    refusals = Refusals()
    for split, name in _SPLIT_NAMES.items():
        path = home / "qas" / f"{name}_vqa.pkl"
        images = (home / "images" / name).relative_to(root)
        with refusals.collecting():
            for number, row in enumerate(objects(load_plain_pickle(path), path), start=1):
                with refusals.collecting():
                    yield _example(row, split, images, f"{path}: row {number}")
    refusals.end()


def _example(row: Row, split: str, images: Path, where: str) -> Example:
    image_id, answer_type = text(row, "img_id", where), text(row, "answer_type", where)
    if answer_type not in _ANSWER_TYPES:
        raise UserError(f"{where}: 'answer_type' is {shown(answer_type)}, none of {', '.join(_ANSWER_TYPES)}")
    said = dialogue(verbatim(row, "sent", where), _answer(row, where))
    return Example(
        id=f"pathvqa-{text(row, 'question_id', where)}",
        source="pathvqa",
        split=split,
        image=(images / f"{image_id}.jpg").as_posix(),
        image_id=image_id,
        **said,
        answer_type=_ANSWER_TYPES[answer_type],
        question_type=optional(row, "question_type", where) or _first_word(said["question"]),
        facts={"answer_type": answer_type},
    )


def _answer(row: Row, where: str) -> str:
    label = row.get("label")
    if not isinstance(label, dict) or len(label) != 1:
        raise UserError(f"{where}: 'label' is {shown(label)}, not a dictionary with the one answer")
    return verbatim({"label": next(iter(label))}, "label", where)


def _first_word(question: str) -> str:
    """The first word in lower case: "what", "where", "is"."""
    return (question.split() or [""])[0].lower().strip("?,.")


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every name that a pickle asks for, so that nothing in it can be called."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UserError(f"{self.path}: the pickle asks for {module}.{name}; do not trust the file")


def load_plain_pickle(path: Path) -> object:
    """The lists, dictionaries, strings and numbers of a pickle; anything else in it is a UserError."""
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, path).load()
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; fetch the set again") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{path}: not a readable pickle ({brief(error)}); fetch it again") from None

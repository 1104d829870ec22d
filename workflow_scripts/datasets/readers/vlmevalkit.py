"""VLMEvalKit's tables: index, image in base64, question, hint, choices A, B and so on, answer.

An image of 64 characters or fewer is the index of the row whose image it shares; several stand as a list in text.
"""

from collections.abc import Iterable

from workflow_scripts.datasets.readers import embedded
from workflow_scripts.datasets.readers.fields import Row

_COLUMNS = {"index", "image", "question", "answer"}
_MOST = 64  # characters of an index


def is_layout(row: Row) -> bool:
    return row.keys() >= _COLUMNS and isinstance(row["image"], str)


def names(rows: Iterable[tuple[int, Row]]) -> dict[str, str]:
    """The names of the files of the images in the rows, by index; bad ones are left out."""
    found = {}
    for _, row in rows:
        try:
            if is_layout(row) and (data := embedded.image_bytes(row["image"])):
                found[str(row["index"])] = embedded.name(data)
        except ValueError:  # an error of its row
            continue
    return found


def is_shared(row: Row) -> bool:
    """Whether the row's image may be an index."""
    return is_layout(row) and len(row["image"].strip()) <= _MOST


def plain(row: Row, shared: dict[str, str]) -> Row:
    """`row` with its images in a list, its id and its whole question; `shared` names the images by index."""
    image = row["image"].strip()
    images = [part.strip(" '\"") for part in image[1:-1].split(",")] if image[:1] == "[" else [image]
    question, hint = row["question"], row.get("hint")
    if isinstance(hint, str) and isinstance(question, str) and hint.strip():
        question = f"{hint}\n{question}"
    return {
        "id": row["index"],
        **row,
        "question": question,
        "image": [shared.get(one, one) for one in images],
    }

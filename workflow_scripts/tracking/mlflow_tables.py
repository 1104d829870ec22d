"""A sample of predictions as a table in MLflow, with the pictures that were asked about."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.pictures.images import open_image

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAMPLE = 100  # questions
SIDE = 224  # pixels of a picture's longer side
_SHOWN = ("source", "language", "answer_type", "question", "gold")


def log_sample(
    client: "MlflowClient", run_id: str, path: Path, name: str, pictures: bool, frames: FrameRule
) -> None:
    """Log rows of `path`, spread evenly over the questions: what each line answered to one, side by side."""
    import mlflow
    import pandas

    artifact = f"{name}.json"
    if artifact in {entry.path for entry in client.list_artifacts(run_id)}:  # MLflow would add the rows to it
        return
    rows = sample(path)
    if not rows:
        return
    table = pandas.DataFrame([row for row, _ in rows])
    if pictures:
        opened = [_opened(path.parent / image, frames) if image else None for _, image in rows]
        kept = {number: mlflow.Image(image) for number, image in enumerate(opened) if image is not None}
        if kept:
            table = table.iloc[list(kept)].reset_index(drop=True)
            table.insert(0, "image", list(kept.values()))
    client.log_table(run_id, table, artifact)


def sample(path: Path) -> list[tuple[dict[str, Any], str]]:
    """(what was asked and what each line answered, its image) of SAMPLE questions of the predictions in `path`."""
    by_question: dict[tuple[str, str], dict[str, Any]] = {}
    images: dict[tuple[str, str], str] = {}
    for row in files.read_jsonl(path):
        key = row["source"], row["id"]
        found = by_question.setdefault(key, {"id": row["id"], **{name: row[name] for name in _SHOWN}})
        found[row["stage"]] = row["answer"]
        if row["stage"] != "shuffled_image":  # asked about another picture
            images[key] = images.get(key) or row["image"]
    step = max(1, -(-len(by_question) // SAMPLE))
    return [(by_question[key], images.get(key, "")) for key in list(by_question)[::step]]


def _opened(path: Path, frames: FrameRule) -> Any:
    try:
        image = open_image(path, frames).convert("RGB")
    except (OSError, UserError):  # removed since
        return None
    image.thumbnail((SIDE, SIDE))
    return image

"""The answers of a run's models on disk: as `ask` writes them, and read as predictions without any model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from workflow_scripts.base import files
from workflow_scripts.base.environment import Made
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation.analysis import strict_scores
from workflow_scripts.evaluation.keeping import KeptAnswer
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.evaluation.questions import HowAsked
from workflow_scripts.evaluation.statistics import final_stage as final
from workflow_scripts.evaluation.statistics.clusters import clusters
from workflow_scripts.evaluation.statistics.final_stage import Choice
from workflow_scripts.models.catalogue import VERSIONS

DIGEST = "answers_sha256"  # in a summary: by which it is told that answers and summary belong together
TRAINED = ("sft", "dpo")  # the stages that train, from the simplest on


class Answer(TypedDict):
    """What a model wrote to a question of a split; `seconds` of asking, `tokens` that it wrote."""

    id: str
    source: str
    split: str
    text: str
    truncated: bool
    forced: bool
    repeated: bool
    tokens: int
    seconds: float


class AnswersSummary(TypedDict):
    """How the answers of a file came about: of which model of the run, how it was asked, and how long that took.

    `seconds` counts answers of before too, `asked_now` leaves them out. `seed` is that of the exchange of pictures.
    """

    run: str
    model: str
    variant: str
    version: int
    seed: int
    model_fingerprint: str
    data_fingerprint: str
    asked: HowAsked
    generation_config: dict[str, Any]
    n: int
    asked_now: int
    seconds: float
    made: Made


def rows(records: Sequence[Record], found: Sequence[KeptAnswer]) -> list[Answer]:
    """The kept answers as those to `records`."""
    return [
        {
            "id": record["id"],
            "source": record["source"],
            "split": record["split"],
            "text": answer["text"],
            "truncated": answer["truncated"],
            "forced": answer["forced"],
            "repeated": answer["repeated"],
            "tokens": answer["tokens"],
            "seconds": answer["seconds"],
        }
        for record, answer in zip(records, found, strict=True)
    ]


def write(path: Path, answers: Sequence[Answer], summary: AnswersSummary) -> None:
    """Write answers, and the summary beside them."""
    files.write_jsonl(path, answers)
    files.write_json(path.with_suffix(".json"), {**summary, DIGEST: files.sha256(path)})


def _summary(path: Path) -> AnswersSummary:
    """The summary beside the answers in `path`; a UserError where it is of other answers."""
    found: Any = files.read_object(path.with_suffix(".json"), *AnswersSummary.__annotations__, DIGEST)
    if found[DIGEST] != files.sha256(path):
        raise UserError(
            f"{path}: not the answers that {path.stem}.json beside it tells of, as after a kill between both; "
            "`python -m workflow_scripts.ask` writes both anew, from the answers that are kept"
        )
    checked: AnswersSummary = found
    return checked


def read(path: Path, records: Sequence[Record]) -> list[Answer]:
    """The answers in `path` to `records`, in their order; a UserError where one is missing."""
    found = {(row["source"], row["split"], row["id"]): row for row in files.read_jsonl(path)}
    keys = [(record["source"], record["split"], record["id"]) for record in records]
    if missing := [key for key in keys if key not in found]:
        raise UserError(
            f"{path}: has no answer to {len(missing)} of {len(keys)} questions, such as {' '.join(missing[0])}; "
            "it is of other data: ask again"
        )
    return [found[key] for key in keys]


def predictions(
    records: Sequence[Record], found: Sequence[Answer], line: str, read_answer: Callable[[str], str | None]
) -> list[Prediction]:
    """One row per record: the question, the gold answer, what the model wrote and what is read from it."""
    return [
        {
            "id": record["id"],
            "stage": line,
            "source": record["source"],
            "image_id": record["image_id"],
            "linked_id": record["linked_id"],
            "language": record["language"],
            "answer_type": record["answer_type"],
            "question_type": record["question_type"],
            "organ": record["organ"],
            "modality": record["modality"],
            "question": record["question"],
            "gold": record["answer"],
            "text": answer["text"],
            "answer": read_answer(answer["text"]),
            "truncated": answer["truncated"],
            "forced": answer["forced"],
            "repeated": answer["repeated"],
            "tokens": answer["tokens"],
            "seconds": answer["seconds"],
            "image": record["images"][-1] if record["images"] else "",
        }
        for record, answer in zip(records, found, strict=True)
    ]


def of_model(
    path: Path, run: Run, records: Sequence[Record], told: AnswersSummary, line: str
) -> list[Prediction]:
    """The answers to `records` in `path`, as `line` of an evaluation, read as their summary says."""
    form = VERSIONS[run.model_version].answer_format(run.mode)
    lenient = told["asked"]["reading"] == "lenient"
    return predictions(records, read(path, records), line, form.read_leniently if lenient else form.read)


def summary(layout: Layout, run: Run, model: str, variant: str) -> AnswersSummary:
    """How the answers of `model` came about; a UserError where model or data have changed since they were given."""
    path = layout.answers(run, model, variant)
    found = _summary(path)
    now = {
        "model_fingerprint": model_fingerprint(layout, run, found["model"]),
        "data_fingerprint": files.read_value(layout.data_summary(run), "fingerprint"),
    }
    for key, value in now.items():
        if found[key] != value:  # type: ignore[literal-required]
            kind = key.partition("_")[0]
            raise UserError(
                f"{path}: the {kind} is another one since; `python -m workflow_scripts.ask` asks again"
            )
    return found


def model_fingerprint(layout: Layout, run: Run, model: str) -> str:
    """What its training, or its download, states of a model of the run; of one that others put there, its weights'."""
    trained = model in TRAINED
    path = layout.metrics(model, run) if trained else layout.model(run.model_version, run.mode) / MANIFEST
    if not path.is_file():
        return files.fingerprint([files.sha256(file) for file in sorted(path.parent.glob("*.safetensors"))])
    found: str = files.read_value(path, "fingerprint")
    return found


def final_stage(
    layout: Layout, run: Run, seed: int, told: Mapping[str, AnswersSummary] | None = None
) -> Choice:
    """The simplest of SFT and DPO that is not beaten on the validation rows that both were asked.

    `told` are their summaries, where these are read already.
    """
    told = told or {stage: summary(layout, run, stage, "original") for stage in TRAINED}
    asked = {
        (row["source"], row["id"])
        for row in files.read_jsonl(layout.answers(run, "sft", "original"))
        if row["split"] == "validation"
    }
    records = [
        record
        for record in files.read_jsonl(layout.split(run, "validation"))
        if (record["source"], record["id"]) in asked
    ]
    scores = {
        stage: strict_scores(
            of_model(layout.answers(run, stage, "original"), run, records, told[stage], stage)
        )
        for stage in TRAINED
    }
    return final.final_stage(scores, clusters(records), seed)

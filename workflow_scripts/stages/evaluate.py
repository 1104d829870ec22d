"""Score what a run's models answered to its test questions: `results/eval/{run}.json`, predictions and a gallery.

The untrained, the SFT and the DPO model, and the better of the last two, by validation rows, on blank and on other
images too. No model is loaded.
"""

import logging
import random
from pathlib import Path
from typing import Any

from workflow_scripts import tracking
from workflow_scripts.base import files, locks, versions
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.records import Record
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation import answers, floor, protocols, questions
from workflow_scripts.evaluation.predictions import Breakdown, Prediction, ScoredRow
from workflow_scripts.evaluation.table import STAGES, Evaluation, percent

logger = logging.getLogger(__name__)

GALLERY_QUESTIONS = 60


def evaluate(settings: Config, layout: Layout, run: Run) -> Evaluation:
    """Score the answers of every stage of `run` and write its evaluation, predictions and gallery."""
    folder = layout.data(run)
    train, test = (list(files.read_jsonl(layout.split(run, split))) for split in ("train", "test"))
    terms = terminology.load(tuple(settings.terms))
    choice = answers.final_stage(layout, run)
    asked = settings.evaluation.asked
    shown = {
        "shuffled": questions.shuffled(test, settings.seed)
    }  # pictures that were shown instead of a row's own
    rows = {
        line: answers.of_model(layout, run, shown.get(variant, test), model, variant, line)
        for line, (model, variant) in asked.items()
    }
    summaries = {line: answers.summary(layout.answers(run, *source)) for line, source in asked.items()}
    scores = {stage: protocols.breakdown(stage_rows, terms) for stage, stage_rows in rows.items()}
    for stage, found in scores.items():
        logger.info("%s: %s %% of %d", stage, percent(found["overall"]["accuracy"]), len(test))
    trained = {
        stage: files.read_object(layout.trained(stage, run) / "metrics.json", "seconds")
        for stage in ("sft", "dpo")
    }
    seconds = sum(found["seconds"] for found in summaries.values())
    evaluation: Evaluation = {
        "run": str(run),
        "final_stage": choice["stage"],
        "versions": _versions(settings, layout, run),
        "data_fingerprint": files.read_value(folder / "summary.json", "fingerprint"),
        "model": {
            "version": run.model_version,
            "mode": run.mode,
            **files.read_value(layout.model(run.model_version, run.mode) / "manifest.json", "origin"),
            **{
                stage: {key: found[key] for key in ("method", "fingerprint")}
                for stage, found in trained.items()
            },
            "asked": {stage: summaries[stage]["asked"] for stage in STAGES},
            "generation_config": summaries["untrained"]["generation_config"],
            "selection": {"by": "accuracy on validation rows", "validation": choice["validation"]},
        },
        "stages": {stage: scores[stage] for stage in STAGES},
        "floor": {"question_only": question_only(train, test, terms)},
        "ablation": {stage: found for stage, found in scores.items() if stage not in STAGES},
        "cost": {
            "sft_seconds": trained["sft"]["seconds"],
            "dpo_seconds": trained["dpo"]["seconds"],
            "eval_seconds": seconds,
            "examples_per_second": sum(found["n"] for found in summaries.values()) / max(seconds, 1e-9),
        },
    }
    everything = [row for stage_rows in rows.values() for row in stage_rows]
    _write_predictions(layout.predictions(run), everything, folder)
    write_gallery(
        layout.gallery(run), f"{run}: predictions", everything, folder, settings.seed, settings.data.frames
    )
    files.write_json(layout.evaluation(run), evaluation)
    return evaluation


def _versions(settings: Config, layout: Layout, run: Run) -> dict[str, int | None]:
    """The versions of all that the scores depend on, as each stage has recorded its own."""
    written = {
        "convert": layout.data(run) / "summary.json",
        "sft": layout.trained("sft", run) / "metrics.json",
        "preferences": layout.pairs_summary(run),
        "dpo": layout.trained("dpo", run) / "metrics.json",
    }
    downloads = [layout.raw(source) for source in settings.sources(run.dataset)]
    downloads.append(layout.model(run.model_version, run.mode))
    fetched = [_version(folder / "manifest.json") for folder in downloads]
    found = {stage: _version(path) for stage, path in written.items()}
    oldest = None if None in fetched else min(filter(None, fetched))
    asked = _version(layout.answers(run, "sft", "original").with_suffix(".json"))
    return {"download": oldest, **found, "ask": asked, "evaluate": versions.RESULTS["evaluate"]}


def _version(path: Path) -> int | None:
    version: int | None = files.read_json(path).get("version") if path.is_file() else None
    return version


def question_only(train: list[Record], test: list[Record], terms: Terminology) -> Breakdown:
    """Scores of answering from the question alone."""
    guesses = floor.question_only(train, test)
    rows: list[ScoredRow] = [
        {
            "gold": record["answer"],
            "text": guess,
            "answer": guess,
            "answer_type": record["answer_type"],
            "truncated": False,
            "source": record["source"],
            "image_id": record["image_id"],
            "language": record["language"],
        }
        for record, guess in zip(test, guesses, strict=True)
    ]
    return protocols.breakdown(rows, terms)


def _write_predictions(path: Path, rows: list[Prediction], folder: Path) -> None:
    """Write rows whose images are relative to `folder`, images then relative to the file."""
    files.write_jsonl(path, (with_image_from(row, folder, path.parent) for row in rows))


def with_image_from(row: Prediction, folder: Path, target: Path) -> Prediction:
    """`row` with its image path relative to `target` instead of `folder`."""
    return {**row, "image": files.relative(folder / row["image"], target) if row["image"] else ""}


def write_gallery(
    path: Path, title: str, rows: list[Prediction], folder: Path, seed: int, frames: FrameRule = FRAMES
) -> None:
    """A page of sampled questions with their pictures and every stage's answer."""
    from workflow_scripts.datasets.pictures.images import open_image
    from workflow_scripts.pages import rendering

    ids = sorted({row["id"] for row in rows})
    chosen = set(random.Random(seed).sample(ids, min(GALLERY_QUESTIONS, len(ids))))
    shown = [row for row in rows if row["id"] in chosen]
    pictures = {
        image: rendering.thumbnail(open_image(folder / image, frames))
        for image in {row["image"] for row in shown}
        if image
    }
    cards: list[Prediction] = [{**row, "image": pictures.get(row["image"], "")} for row in shown]
    rendering.gallery_page(path, title, cards)


def stage(settings: Config, layout: Layout, run: Run) -> Evaluation:
    """`evaluate`, recorded by the trackers."""
    settings.checkpoint(run.model_version, run.mode)
    parameters = dependencies.stage_settings(settings, "evaluate")
    with (
        locks.one_writer(layout.evaluation(run), settings.output_in_use),
        tracking.stage(settings, layout, run, "evaluate", parameters) as record,
    ):
        evaluation = evaluate(settings, layout, run)
        numbers: dict[str, Any] = {**evaluation}
        record.metrics({key: numbers[key] for key in ("stages", "floor", "ablation", "cost")})
        record.artifact(layout.evaluation(run))
        record.table(list(files.read_jsonl(layout.predictions(run))), "predictions")
    return evaluation

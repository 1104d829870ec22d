"""Score what a run's models answered to its test questions: `results/eval/{run}.json`, predictions and a gallery.

The untrained, the SFT and the DPO model, and the better of the last two, by validation rows, on blank and on other
images too. No model is loaded.
"""

import logging
import random
from collections.abc import Mapping
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
from workflow_scripts.evaluation import analysis, answers, floor, protocols, questions
from workflow_scripts.evaluation.answers import TRAINED, Answer, AnswersSummary
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.evaluation.protocols.judge import Judge
from workflow_scripts.evaluation.statistics import pictures
from workflow_scripts.evaluation.table import STAGES, Evaluation, percent

logger = logging.getLogger(__name__)

GALLERY_QUESTIONS = 60


def evaluate(settings: Config, layout: Layout, run: Run) -> Evaluation:
    """Score the answers of every stage of `run` and write its evaluation, predictions and gallery."""
    folder = layout.data(run)
    train, test = (list(files.read_jsonl(layout.split(run, split))) for split in ("train", "test"))
    terms = terminology.load(tuple(settings.terms))
    choice = answers.final_stage(layout, run, settings.seed)
    asked = settings.evaluation.asked
    lines = {analysis.FLOOR: floor_rows(train, test), **_lines(settings, layout, run, test)}
    scores = {line: protocols.breakdown(rows, terms) for line, rows in lines.items()}
    for line, shares in scores.items():
        logger.info("%s: %s %% of %d", line, percent(shares["overall"]["accuracy"]), len(test))
    further = [Judge(judge, layout.judged())] if (judge := settings.evaluation.judge) else []
    leaked = pictures.leaked_images(files.read_object(folder / "validation.json"))
    found = analysis.analyse(lines, choice["stage"], leaked, terms, further, settings.seed)
    summaries = {line: answers.summary(layout.answers(run, *source)) for line, source in asked.items()}
    evaluation: Evaluation = {
        "run": str(run),
        "final_stage": choice["stage"],
        "versions": _versions(settings, layout, run),
        "data_fingerprint": files.read_value(folder / "summary.json", "fingerprint"),
        "model": _model(layout, run, summaries) | {"selection": choice},
        "stages": {line: scores[line] for line in STAGES},
        "floor": {"question_only": scores[analysis.FLOOR]},
        "ablation": {line: scores[line] for line in asked if line not in STAGES},
        "groups": found["groups"],
        "protocols": found["protocols"],
        "comparisons": found["comparisons"],
        "picture": found["picture"],
        "resolution": found["resolution"],
        "cost": _cost(layout, run, summaries),
    }
    everything = [row for line in asked for row in lines[line]]
    _write_predictions(layout.predictions(run), everything, folder)
    write_gallery(
        layout.gallery(run), f"{run}: predictions", everything, folder, settings.seed, settings.data.frames
    )
    files.write_json(layout.evaluation(run), evaluation)
    return evaluation


def _lines(settings: Config, layout: Layout, run: Run, test: list[Record]) -> dict[str, list[Prediction]]:
    """The predictions of what was asked, by line; of other images, with these."""
    records = {"shuffled": questions.shuffled(test, settings.seed)}
    return {
        line: answers.of_model(layout, run, records.get(variant, test), model, variant, line)
        for line, (model, variant) in settings.evaluation.asked.items()
    }


def _model(layout: Layout, run: Run, summaries: Mapping[str, AnswersSummary]) -> dict[str, Any]:
    """Which model, from where, how it was trained and how it was asked."""
    trained = {stage: files.read_object(layout.trained(stage, run) / "metrics.json") for stage in TRAINED}
    return {
        "version": run.model_version,
        "mode": run.mode,
        **files.read_value(layout.model(run.model_version, run.mode) / "manifest.json", "origin"),
        **{stage: {key: found[key] for key in ("method", "fingerprint")} for stage, found in trained.items()},
        "asked": {stage: summaries[stage]["asked"] for stage in STAGES},
        "generation_config": summaries["untrained"]["generation_config"],
    }


def _cost(layout: Layout, run: Run, summaries: Mapping[str, AnswersSummary]) -> dict[str, float]:
    """Seconds of training and asking, answers of before counted with what they took then."""
    trained = {
        stage: files.read_value(layout.trained(stage, run) / "metrics.json", "seconds") for stage in TRAINED
    }
    seconds = sum(found["seconds"] for found in summaries.values())
    count = sum(found["n"] for found in summaries.values())
    return {
        **{f"{stage}_seconds": found for stage, found in trained.items()},
        "eval_seconds": seconds,
        "examples_per_second": count / seconds if seconds else 0.0,
    }


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


def floor_rows(train: list[Record], test: list[Record]) -> list[Prediction]:
    """The answers from the question alone, as a line's predictions."""
    guesses: list[Answer] = [
        {
            "id": record["id"],
            "source": record["source"],
            "split": record["split"],
            "text": guess,
            "truncated": False,
            "forced": False,
            "repeated": False,
            "tokens": 0,
            "seconds": 0.0,
        }
        for record, guess in zip(test, floor.question_only(train, test), strict=True)
    ]
    return answers.predictions(test, guesses, analysis.FLOOR, lambda text: text or None)


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

"""Score a run's models on its test records: `results/eval/{run}.json`, predictions and a gallery.

As a stage of the chain (no --model_path) it scores the untrained, the SFT and the DPO model, and the better of the
last two, by validation rows, on blank images too. With --model_path it scores that one model on the sets of --test_datasets.
"""

import json
import logging
import random
import time
from pathlib import Path
from typing import Any

from workflow_scripts import tracking
from workflow_scripts.base import files, gpus, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.records import Record
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation import floor, protocols
from workflow_scripts.evaluation.examiner import Asked, Examiner, asked
from workflow_scripts.evaluation.predictions import Breakdown, Metrics, Prediction, ScoredRow
from workflow_scripts.evaluation.table import Evaluation, percent

logger = logging.getLogger(__name__)

GALLERY_QUESTIONS = 60


class ModelEvaluation(Breakdown):
    """The scores of one model on the sets of --test_datasets."""

    model_path: str
    model_version: str
    mode: str
    protocol: str
    versions: dict[str, int | None]
    asked: Asked
    generation_config: dict[str, Any]


def evaluate(settings: Config, layout: Layout, run: Run) -> Evaluation:
    """Score every stage of `run` and write its evaluation, predictions and gallery."""
    started = time.monotonic()
    folder = layout.data(run)
    records: dict[str, list[Record]] = {
        split: list(files.read_jsonl(layout.split(run, split))) for split in ("train", "validation", "test")
    }
    models = {
        "untrained": layout.model(run.model_version, run.mode),
        "sft": layout.trained("sft", run),
        "dpo": layout.trained("dpo", run),
    }
    chosen = _sample(records["validation"], settings.evaluation.max_validation_rows, settings.seed)
    examiner = _examiner(settings, run.model_version, run.mode)
    terms = terminology.load(tuple(settings.terms))
    rows, validation, generation_config = _ask_stages(
        examiner, models, records["test"], chosen, folder, terms
    )
    shares = {stage: scores["accuracy"] or 0 for stage, scores in validation.items()}
    final_stage = "dpo" if shares["dpo"] >= shares["sft"] else "sft"
    blank: list[Prediction] = []
    if settings.evaluation.blank_image:
        with examiner.model(models[final_stage]) as model:
            blank = examiner.predictions(model, records["test"], folder, "blank_image", blank=True)

    everything = [row for stage_rows in rows.values() for row in stage_rows] + blank
    seconds = time.monotonic() - started
    trained = {
        stage: files.read_object(models[stage] / "metrics.json", "seconds") for stage in ("sft", "dpo")
    }
    evaluation: Evaluation = {
        "run": str(run),
        "final_stage": final_stage,
        "versions": _versions(settings, layout, run),
        "data_fingerprint": files.read_value(folder / "summary.json", "fingerprint"),
        "model": {
            "version": run.model_version,
            "mode": run.mode,
            **files.read_value(models["untrained"] / "manifest.json", "origin"),
            **{
                stage: {key: found[key] for key in ("method", "fingerprint")}
                for stage, found in trained.items()
            },
            "asked": {stage: asked(untrained=stage == "untrained") for stage in models},
            "generation_config": generation_config,
            "selection": {"by": "accuracy on validation rows", "validation": validation},
        },
        "stages": {stage: protocols.breakdown(stage_rows, terms) for stage, stage_rows in rows.items()},
        "floor": {"question_only": question_only(records["train"], records["test"], terms)},
        "ablation": {"blank_image": protocols.breakdown(blank, terms)} if blank else {},
        "cost": {
            "sft_seconds": trained["sft"]["seconds"],
            "dpo_seconds": trained["dpo"]["seconds"],
            "eval_seconds": seconds,
            "examples_per_second": len(everything) / seconds,
        },
    }
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
    return {"download": oldest, **found, "evaluate": versions.RESULTS["evaluate"]}


def _version(path: Path) -> int | None:
    version: int | None = files.read_json(path).get("version") if path.is_file() else None
    return version


def _examiner(settings: Config, version: str, mode: str) -> Examiner:
    return Examiner(settings.evaluation, settings.data.max_image_side, settings.data.frames, version, mode)


def _ask_stages(
    examiner: Examiner,
    models: dict[str, Path],
    test: list[Record],
    validation: list[Record],
    folder: Path,
    terms: Terminology,
) -> tuple[dict[str, list[Prediction]], dict[str, Metrics], dict[str, Any]]:
    """Predictions for `test` by stage, scores of the trained stages on `validation`, and the checkpoint's settings."""
    rows: dict[str, list[Prediction]] = {}
    generation_config: dict[str, Any] = {}
    scores: dict[str, Metrics] = {}
    for stage, path in models.items():
        with examiner.model(path) as model:
            untrained = stage == "untrained"
            rows[stage] = examiner.predictions(model, test, folder, stage, untrained=untrained)
            if untrained:
                generation_config = model.checkpoint_settings
            else:
                scores[stage] = protocols.DEFAULT.metrics(
                    examiner.predictions(model, validation, folder, stage), terms
                )
        accuracy = protocols.DEFAULT.metrics(rows[stage], terms)["accuracy"]
        logger.info("%s: %s %% of %d", stage, percent(accuracy), len(rows[stage]))
    return rows, scores, generation_config


def question_only(train: list[Record], test: list[Record], terms: Terminology) -> Breakdown:
    """Scores of answering from the question alone."""
    guesses = floor.question_only(train, test)
    rows: list[ScoredRow] = [
        {
            "question": record["question"],
            "gold": record["answer"],
            "text": guess,
            "answer": guess,
            "answer_type": record["answer_type"],
            "truncated": False,
            "source": record["source"],
            "language": record["language"],
            "image_id": record["image_id"],
        }
        for record, guess in zip(test, guesses, strict=True)
    ]
    return protocols.breakdown(rows, terms)


def _sample(records: list[Record], limit: int, seed: int) -> list[Record]:
    return records if len(records) <= limit else random.Random(seed).sample(records, limit)


def _write_predictions(path: Path, rows: list[Prediction], folder: Path) -> None:
    """Write rows whose images are relative to `folder`, images then relative to the file."""
    files.write_jsonl(path, (_with_image_from(row, folder, path.parent) for row in rows))


def _with_image_from(row: Prediction, folder: Path, target: Path) -> Prediction:
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


def evaluate_model(
    settings: Config,
    layout: Layout,
    path: Path,
    version: str,
    mode: str,
    test_datasets: list[str],
    output: Path,
) -> ModelEvaluation:
    """Score one model on the test records of several sets; writes `output` and the predictions beside it."""
    tests = {name: _test_records(settings, layout, Run(name, version, mode)) for name in test_datasets}
    examiner = _examiner(settings, version, mode)
    rows: list[Prediction] = []
    untrained = (path / "manifest.json").is_file()  # of a download; what was trained has metrics.json
    with locks.one_writer(output, settings.output_in_use), gpus.taken(settings.evaluation.gpus):
        with examiner.model(path) as model:
            for name, records in tests.items():
                folder = layout.data(Run(name, version, mode))
                found = examiner.predictions(model, records, folder, "model", untrained=untrained)
                rows += [_with_image_from(row, folder, output.parent) for row in found]
            generation_config = model.checkpoint_settings
        result: ModelEvaluation = {
            "model_path": str(path),
            "model_version": version,
            "mode": mode,
            "protocol": protocols.DEFAULT.NAME,
            "versions": {
                **({} if untrained else _version_of_training(path)),
                "evaluate": versions.RESULTS["evaluate"],
            },
            "asked": asked(untrained),
            "generation_config": generation_config,
            **protocols.breakdown(rows, terminology.load(tuple(settings.terms))),
        }
        files.write_jsonl(output.with_suffix(".predictions.jsonl"), rows)
        files.write_json(output, result)
    return result


def _version_of_training(model: Path) -> dict[str, int | None]:
    """The version of the stage that trained `model`, where its metrics.json tells."""
    path = model / "metrics.json"
    metrics = files.read_json(path) if path.is_file() else {}
    return {metrics["stage"]: metrics.get("version")} if "stage" in metrics else {}


def _test_records(settings: Config, layout: Layout, run: Run) -> list[Record]:
    settings.dataset(run.dataset)
    path = layout.split(run, "test")
    if not path.is_file():
        command = f"--dataset {run.dataset} --model_version {run.model_version} --mode {run.mode}"
        raise UserError(f"{path}: no such file; make it with `python -m workflow_scripts.convert {command}`")
    return list(files.read_jsonl(path))


def model_stage(
    settings: Config,
    layout: Layout,
    path: Path,
    version: str,
    mode: str,
    test_datasets: list[str],
    output: Path,
) -> ModelEvaluation:
    """`evaluate_model`, with its numbers printed."""
    settings.checkpoint(version, mode)
    result = evaluate_model(settings, layout, path, version, mode, test_datasets, output)
    print(json.dumps(result["overall"], indent=2))
    logger.info("written: %s", output)
    return result


def stage(settings: Config, layout: Layout, run: Run) -> Evaluation:
    """`evaluate`, recorded by the trackers."""
    settings.checkpoint(run.model_version, run.mode)
    parameters = dependencies.stage_settings(settings, "evaluate")
    with (
        locks.one_writer(layout.evaluation(run), settings.output_in_use),
        gpus.taken(settings.evaluation.gpus),
        tracking.stage(settings, layout, run, "evaluate", parameters) as record,
    ):
        evaluation = evaluate(settings, layout, run)
        numbers: dict[str, Any] = {**evaluation}
        record.metrics({key: numbers[key] for key in ("stages", "floor", "ablation", "cost")})
        record.artifact(layout.evaluation(run))
        record.table(list(files.read_jsonl(layout.predictions(run))), "predictions")
    return evaluation

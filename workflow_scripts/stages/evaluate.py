"""Score a run's models on its test records: `results/eval/{run}.json`, predictions and a gallery.

As a stage of the chain (no --model_path) it scores the untrained, the SFT and the DPO model, and the better of the
last two, by validation rows, on blank images too. With --model_path it scores that one model on the sets of --test_datasets.
"""

import json
import logging
import os
import random
import time
from pathlib import Path

from workflow_scripts import tracking
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation import floor, protocols
from workflow_scripts.evaluation.examiner import Examiner

logger = logging.getLogger(__name__)

GALLERY_QUESTIONS = 60


def evaluate(settings: Config, layout: Layout, run: Run) -> dict:
    """Score every stage of `run` and write its evaluation, predictions and gallery."""
    started = time.monotonic()
    folder = layout.data(run)
    records = {
        split: list(files.read_jsonl(layout.split(run, split))) for split in ("train", "validation", "test")
    }
    models = {
        "untrained": layout.model(run.model_version, run.mode),
        "sft": layout.trained("sft", run),
        "dpo": layout.trained("dpo", run),
    }
    chosen = _sample(records["validation"], settings.evaluation.max_validation_rows, settings.seed)
    examiner = Examiner(settings, run.model_version, run.mode)
    terms = terminology.load(tuple(settings.terms))
    rows, validation = _ask_stages(examiner, models, records["test"], chosen, folder, terms)
    final_stage = "dpo" if validation["dpo"]["accuracy"] >= validation["sft"]["accuracy"] else "sft"
    blank: list[dict] = []
    if settings.evaluation.blank_image:
        with examiner.model(models[final_stage]) as model:
            blank = examiner.predictions(model, records["test"], folder, "blank_image", blank=True)

    everything = [row for stage_rows in rows.values() for row in stage_rows] + blank
    seconds = time.monotonic() - started
    trained = {stage: files.read_json(models[stage] / "metrics.json") for stage in ("sft", "dpo")}
    evaluation = {
        "run": str(run),
        "final_stage": final_stage,
        "data_fingerprint": files.read_json(folder / "summary.json")["fingerprint"],
        "model": {
            "version": run.model_version,
            "mode": run.mode,
            **files.read_json(models["untrained"] / "manifest.json")["origin"],
            **{
                stage: {key: found[key] for key in ("method", "fingerprint")}
                for stage, found in trained.items()
            },
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
    write_gallery(layout.gallery(run), f"{run}: predictions", everything, folder, settings.seed)
    files.write_json(layout.evaluation(run), evaluation)
    return evaluation


def _ask_stages(
    examiner: Examiner,
    models: dict[str, Path],
    test: list[dict],
    validation: list[dict],
    folder: Path,
    terms: Terminology,
) -> tuple[dict[str, list[dict]], dict[str, dict]]:
    """Predictions for `test` by stage, and scores of the trained stages on `validation`."""
    rows, scores = {}, {}
    for stage, path in models.items():
        with examiner.model(path) as model:
            rows[stage] = examiner.predictions(model, test, folder, stage)
            if stage != "untrained":
                scores[stage] = protocols.DEFAULT.metrics(
                    examiner.predictions(model, validation, folder, stage), terms
                )
        accuracy = protocols.DEFAULT.metrics(rows[stage], terms)["accuracy"]
        logger.info("%s: %.1f %% of %d", stage, 100 * accuracy, len(rows[stage]))
    return rows, scores


def question_only(train: list[dict], test: list[dict], terms: Terminology) -> dict:
    """Scores of answering from the question alone."""
    guesses = floor.question_only(train, test)
    return protocols.breakdown(
        [
            {**record, "gold": record["answer"], "answer": guess, "truncated": False}
            for record, guess in zip(test, guesses, strict=True)
        ],
        terms,
    )


def _sample(records: list[dict], limit: int, seed: int) -> list[dict]:
    return records if len(records) <= limit else random.Random(seed).sample(records, limit)


def _write_predictions(path: Path, rows: list[dict], folder: Path) -> None:
    """Write rows whose images are relative to `folder`, images then relative to the file."""
    files.write_jsonl(path, (_with_image_from(row, folder, path.parent) for row in rows))


def _with_image_from(row: dict, folder: Path, target: Path) -> dict:
    """`row` with its image path relative to `target` instead of `folder`."""
    return {**row, "image": os.path.relpath(folder / row["image"], target) if row["image"] else ""}


def write_gallery(path: Path, title: str, rows: list[dict], folder: Path, seed: int) -> None:
    """A page of sampled questions with their pictures and every stage's answer."""
    from workflow_scripts.datasets.pictures.images import open_image
    from workflow_scripts.pages import rendering

    ids = sorted({row["id"] for row in rows})
    chosen = set(random.Random(seed).sample(ids, min(GALLERY_QUESTIONS, len(ids))))
    shown = [row for row in rows if row["id"] in chosen]
    pictures = {
        image: rendering.thumbnail(open_image(folder / image))
        for image in {row["image"] for row in shown}
        if image
    }
    rendering.gallery_page(path, title, [{**row, "image": pictures.get(row["image"], "")} for row in shown])


def evaluate_model(
    settings: Config,
    layout: Layout,
    path: Path,
    version: str,
    mode: str,
    test_datasets: list[str],
    output: Path,
) -> dict:
    """Score one model on the test records of several sets; writes `output` and the predictions beside it."""
    tests = {name: _test_records(settings, layout, Run(name, version, mode)) for name in test_datasets}
    examiner = Examiner(settings, version, mode)
    rows: list[dict] = []
    with examiner.model(path) as model:
        for name, records in tests.items():
            folder = layout.data(Run(name, version, mode))
            asked = examiner.predictions(model, records, folder, "model")
            rows += [_with_image_from(row, folder, output.parent) for row in asked]
    result = {
        "model_path": str(path),
        "model_version": version,
        "mode": mode,
        "protocol": protocols.DEFAULT.NAME,
        **protocols.breakdown(rows, terminology.load(tuple(settings.terms))),
    }
    files.write_jsonl(output.with_suffix(".predictions.jsonl"), rows)
    files.write_json(output, result)
    return result


def _test_records(settings: Config, layout: Layout, run: Run) -> list[dict]:
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
) -> dict:
    """`evaluate_model`, with its numbers printed."""
    settings.checkpoint(version, mode)
    result = evaluate_model(settings, layout, path, version, mode, test_datasets, output)
    print(json.dumps(result["overall"], indent=2))
    logger.info("written: %s", output)
    return result


def stage(settings: Config, layout: Layout, run: Run) -> dict:
    """`evaluate`, recorded by the trackers."""
    settings.checkpoint(run.model_version, run.mode)
    parameters = dependencies.stage_settings(settings, "evaluate")
    with tracking.stage(settings, layout, run, "evaluate", parameters) as record:
        evaluation = evaluate(settings, layout, run)
        record.metrics({key: evaluation[key] for key in ("stages", "floor", "ablation", "cost")})
        record.artifact(layout.evaluation(run))
        record.table(list(files.read_jsonl(layout.predictions(run))), "predictions")
    return evaluation

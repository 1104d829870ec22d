"""Score what a run's models answered to its test questions: `results/eval/{run}.json`, predictions and a page.

The untrained, the SFT and the DPO model, and the better of the last two, by validation rows, on blank and on other
images too. No model is loaded.
"""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts import tracking
from workflow_scripts.base import files, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, SUMMARY, Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation import analysis, answers, floor, protocols, questions, scores, table
from workflow_scripts.evaluation.answers import TRAINED, Answer, AnswersSummary
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.evaluation.protocols import ScoringProtocol
from workflow_scripts.evaluation.protocols.judge import Judge
from workflow_scripts.evaluation.statistics import pictures
from workflow_scripts.evaluation.statistics.clusters import clusters
from workflow_scripts.evaluation.table import STAGES, Evaluation, percent
from workflow_scripts.stages import provenance

logger = logging.getLogger(__name__)

Scoring = Sequence[ScoringProtocol]


def evaluate(settings: Config, layout: Layout, run: Run) -> Evaluation:
    """Score the answers of every stage of `run` and write its evaluation, predictions and page."""
    folder = layout.data(run)
    train, test = (list(files.read_jsonl(layout.split(run, split))) for split in ("train", "test"))
    terms = terminology.load(tuple(settings.terms))
    asked = settings.evaluation.asked
    summaries = {line: answers.summary(layout, run, *source) for line, source in asked.items()}
    choice = answers.final_stage(layout, run, settings.seed, summaries)
    _check(layout, run, summaries, asked, choice["stage"], settings.seed)
    lines = {analysis.FLOOR: floor_rows(train, test), **_lines(settings, layout, run, test, summaries)}
    judge = [Judge(asking, layout.judged())] if (asking := settings.evaluation.judge) else []
    scoring: Scoring = (*protocols.MODULES, *judge)
    said = analysis.verdicts(lines, scoring, terms)
    default = protocols.DEFAULT
    shares = {
        line: protocols.breakdown_of(rows, said[line][default.NAME], default.NUMBERS)
        for line, rows in lines.items()
    }
    for line, found in shares.items():
        logger.info("%s: %s %% of %d", line, percent(found["overall"]["accuracy"]), len(test))
    leaked = pictures.leaked_images(files.read_object(layout.validation(run)))
    analysed = analysis.analyse(lines, choice["stage"], leaked, scoring, said, settings.seed)
    summary = files.read_object(folder / SUMMARY, "fingerprint")
    limit: int | None = summary.get("limit")  # of the records themselves; a set of before was whole
    evaluation: Evaluation = {
        "run": str(run),
        "final_stage": choice["stage"],
        **({"limit": limit} if limit else {}),  # type: ignore[typeddict-item]
        "versions": _versions(settings, layout, run, summaries["sft"].get("version")),
        "data_fingerprint": summary["fingerprint"],
        "provenance": provenance.provenance(settings, layout, run, summaries["sft"]),
        "model": _model(layout, run, summaries) | {"selection": choice},
        "stages": {line: shares[line] for line in STAGES},
        "floor": {"question_only": shares[analysis.FLOOR]},
        "ablation": {line: shares[line] for line in asked if line not in STAGES},
        "groups": analysed["groups"],
        "protocols": analysed["protocols"],
        "comparisons": analysed["comparisons"],
        "picture": analysed["picture"],
        "confusion": analysed["confusion"],
        "resolution": analysed["resolution"],
        "cost": _cost(layout, run, summaries),
    }
    _write_predictions(layout, run, {line: lines[line] for line in asked}, said)
    _write_page(settings, layout, run, evaluation, scoring, lines, said, leaked)
    files.write_json(layout.evaluation(run), evaluation)
    return evaluation


def _lines(
    settings: Config, layout: Layout, run: Run, test: list[Record], told: Mapping[str, AnswersSummary]
) -> dict[str, list[Prediction]]:
    """The predictions of what was asked, by line; of other images, with these."""
    records = {"shuffled": questions.shuffled(test, settings.seed)}
    return {
        line: answers.of_model(
            layout.answers(run, model, variant), run, records.get(variant, test), told[line], line
        )
        for line, (model, variant) in settings.evaluation.asked.items()
    }


def _check(
    layout: Layout,
    run: Run,
    summaries: Mapping[str, AnswersSummary],
    asked: Mapping[str, tuple[str, str]],
    final_stage: str,
    seed: int,
) -> None:
    """A UserError where answers without the picture are of the model that is not the final one, or of another seed."""
    for line, (model, variant) in asked.items():
        found, path = summaries[line], layout.answers(run, model, variant)
        if model == "final" and found["model"] != final_stage:
            wrong = f"answers of {found['model']}, and {final_stage} is the final model"
        elif variant == "shuffled" and found["seed"] != seed:
            wrong = f"pictures were exchanged by seed {found['seed']}, and it is {seed}"
        else:
            continue
        raise UserError(f"{path}: {wrong}; `python -m workflow_scripts.ask` asks again")


def _model(layout: Layout, run: Run, summaries: Mapping[str, AnswersSummary]) -> dict[str, Any]:
    """Which model, from where, how it was trained and how it was asked."""
    trained = {stage: files.read_object(layout.metrics(stage, run)) for stage in TRAINED}
    return {
        "version": run.model_version,
        "mode": run.mode,
        **files.read_value(layout.model(run.model_version, run.mode) / MANIFEST, "origin"),
        **{stage: {key: found[key] for key in ("method", "fingerprint")} for stage, found in trained.items()},
        "asked": {stage: summaries[stage]["asked"] for stage in STAGES},
        "generation_config": summaries["untrained"]["generation_config"],
    }


def _cost(layout: Layout, run: Run, summaries: Mapping[str, AnswersSummary]) -> dict[str, float]:
    """Seconds of training and asking, answers of before counted with what they took then."""
    trained = {stage: files.read_value(layout.metrics(stage, run), "seconds") for stage in TRAINED}
    seconds = sum(found["seconds"] for found in summaries.values())
    count = sum(found["n"] for found in summaries.values())
    return {
        **{f"{stage}_seconds": found for stage, found in trained.items()},
        "eval_seconds": seconds,
        "examples_per_second": count / seconds if seconds else 0.0,
    }


def _versions(settings: Config, layout: Layout, run: Run, asked: int | None) -> dict[str, int | None]:
    """The versions of all that the scores depend on, as each stage has recorded its own."""
    written = {
        "convert": layout.data_summary(run),
        "sft": layout.metrics("sft", run),
        "preferences": layout.pairs_summary(run),
        "dpo": layout.metrics("dpo", run),
    }
    downloads = [layout.raw(source) for source in settings.sources(run.dataset)]
    downloads.append(layout.model(run.model_version, run.mode))
    fetched = [_version(folder / MANIFEST) for folder in downloads]
    found = {stage: _version(path) for stage, path in written.items()}
    oldest = None if None in fetched else min(filter(None, fetched))
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


def _write_predictions(layout: Layout, run: Run, lines: analysis.Lines, said: analysis.Verdicts) -> None:
    """Write the rows of all lines, images then relative to the file, and the same as a table with their scores."""
    path = layout.predictions(run)
    rows = [with_image_from(row, layout.data(run), path.parent) for found in lines.values() for row in found]
    files.write_jsonl(path, rows)
    labels = [int(label) for found in lines.values() for label in clusters(found)]
    verdicts = {
        protocol: [verdict for line in lines for verdict in said[line][protocol]]
        for protocol in said[analysis.FLOOR]
    }
    scores.write(layout.scores(run), rows, verdicts, labels)


def with_image_from(row: Prediction, folder: Path, target: Path) -> Prediction:
    """`row` with its image path relative to `target` instead of `folder`."""
    return {**row, "image": files.relative(folder / row["image"], target) if row["image"] else ""}


def _write_page(
    settings: Config,
    layout: Layout,
    run: Run,
    evaluation: Evaluation,
    scoring: Scoring,
    lines: analysis.Lines,
    said: analysis.Verdicts,
    leaked: Collection[str],
) -> None:
    """The page of the run, with all questions and their pictures."""
    from workflow_scripts.datasets.pictures.images import open_image
    from workflow_scripts.pages import evaluation_page, evidence, rendering
    from workflow_scripts.pages.thumbnails import thumbnails

    path, folder = layout.evaluation_page(run), layout.data(run)
    names = sorted({row["image"] for rows in lines.values() for row in rows if row["image"]})
    pictures = thumbnails(names, lambda name: open_image(folder / name, settings.data.frames))
    labels = [int(label) for label in clusters(lines[analysis.FLOOR])]
    packed = evidence.pack(lines, said, rendering.LINES, labels, leaked, list(pictures.uris))
    linked = {
        "Data": layout.validation_page(run),
        "JSON": layout.evaluation(run),
        "JSONL": layout.predictions(run),
        "Parquet": layout.scores(run),
        "All runs": layout.report(),
    }
    links = {title: os.path.relpath(target, path.parent) for title, target in linked.items()}
    evaluation_page.evaluation_page(
        path, evaluation, scoring, evaluation_page.Evidence(packed, pictures), links
    )


def stage(settings: Config, layout: Layout, run: Run) -> Evaluation:
    """`evaluate`, recorded by the trackers."""
    settings.checkpoint(run.model_version, run.mode)
    parameters = dependencies.stage_settings(settings, "evaluate")
    with (
        locks.one_writer(layout.evaluation(run), settings.output_in_use),
        tracking.stage(settings, layout, run, "evaluate", parameters) as record,
    ):
        digest = files.read_value(layout.data_summary(run), "fingerprint")
        record.dataset(layout.split(run, "test"), digest, "evaluation")
        evaluation = evaluate(settings, layout, run)
        _record(record, layout, run, evaluation)
    return evaluation


def _record(record: tracking.Recorder, layout: Layout, run: Run, evaluation: Evaluation) -> None:
    """Tell the trackers the scores of the lines, those of the final model by set, language and kind, and the files."""
    by_set = scores.shares(layout.scores(run), evaluation["final_stage"], protocols.DEFAULT.NAME)
    record.metrics({"eval": by_set, "cost": evaluation["cost"]})
    record.metrics(
        {
            "line": {
                key: {
                    "accuracy": group["overall"]["accuracy"],
                    "closed": group["overall"].get("closed_accuracy"),
                    "open": group["overall"].get("open_exact_match"),
                    "unreadable": group["overall"].get("unreadable"),
                }
                for key, _, group in table.lines(evaluation)
            }
        }
    )
    for path in (layout.evaluation(run), layout.scores(run)):
        record.artifact(path)
    record.artifact(layout.evaluation_page(run), "pages", pictures=True)
    if record.records:
        from workflow_scripts.pages import figures

        for path in figures.write(layout.charts(run), evaluation):
            record.artifact(path, "charts")
    record.table(layout.predictions(run), "predictions")

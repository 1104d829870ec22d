"""Score a run's models on its test records: `results/eval/{run}.json`, predictions and a gallery.

As a stage of the chain (no --model_path) it scores the untrained, the SFT and the DPO model, and the better of the
last two, by validation rows, on blank images too. With --model_path it scores that one model on the sets of --test_datasets.
"""

import json
import logging
import os
import random
import sys
import time
from pathlib import Path

from workflow_scripts import cli, config, files, tracking
from workflow_scripts.errors import UserError
from workflow_scripts.evaluation import floor, scoring
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.paths import Layout, Run

logger = logging.getLogger(__name__)

GALLERY_QUESTIONS = 60


class Examiner:
    """Asks models of one run the same questions in the same way."""

    def __init__(self, settings: config.Config, run: Run) -> None:
        self.settings, self.run = settings, run
        self.reader = VERSIONS[run.model_version].answer_format(run.mode)

    def generator(self, path: Path):
        """The model at `path`, ready to be asked."""
        from workflow_scripts.evaluation.generation import Generator
        from workflow_scripts.models import loading, processors
        from workflow_scripts.models.dialogue import Dialogue

        own = self.settings.evaluation
        device, dtype = loading.device_and_dtype(own.gpus)
        loaded = loading.model(path, dtype, device, device_map="auto" if own.gpus > 1 else None)
        processor = processors.load(path, VERSIONS[self.run.model_version], self.settings.data.max_image_side)
        dialogue = Dialogue(processor, self.run.model_version, self.run.mode)
        return Generator(loaded, processor, dialogue, own.batch_size, own.max_new_tokens)

    def predictions(
        self, generator, records: list[dict], folder: Path, stage: str, blank: bool = False
    ) -> list[dict]:
        """One row per record: the question, the gold answer, what the model wrote and what was read from it."""
        answers = generator.answer(records, folder, blank)
        keys = ("id", "source", "image_id", "language", "answer_type", "question")
        return [
            {
                **{key: record[key] for key in keys},
                "gold": record["answer"],
                "stage": stage,
                "text": generation.text,
                "answer": self.reader.read(generation.text),
                "truncated": generation.truncated,
                "image": record["images"][-1] if record["images"] else "",
            }
            for record, (generation,) in zip(records, answers, strict=True)
        ]


def evaluate(settings: config.Config, layout: Layout, run: Run) -> dict:
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
    examiner = Examiner(settings, run)
    rows: dict[str, list[dict]] = {}
    validation: dict[str, dict] = {}
    for name, path in models.items():
        generator = examiner.generator(path)
        rows[name] = examiner.predictions(generator, records["test"], folder, name)
        if name != "untrained":
            validation[name] = scoring.metrics(examiner.predictions(generator, chosen, folder, name))
        logger.info("%s: %.1f %% of %d", name, 100 * scoring.metrics(rows[name])["accuracy"], len(rows[name]))
    final_stage = "dpo" if validation["dpo"]["accuracy"] >= validation["sft"]["accuracy"] else "sft"
    blank: list[dict] = []
    if settings.evaluation.blank_image:
        if final_stage != name:
            generator = examiner.generator(models[final_stage])
        blank = examiner.predictions(generator, records["test"], folder, "blank_image", blank=True)

    trained = {stage: files.read_json(models[stage] / "metrics.json") for stage in ("sft", "dpo")}
    everything = [row for stage_rows in rows.values() for row in stage_rows] + blank
    seconds = time.monotonic() - started
    evaluation = {
        "run": str(run),
        "final_stage": final_stage,
        "data_fingerprint": files.read_json(folder / "summary.json")["fingerprint"],
        "model": {
            "version": run.model_version,
            "mode": run.mode,
            **files.read_json(models["untrained"] / "manifest.json")["origin"],
            "sft": {key: trained["sft"][key] for key in ("method", "fingerprint")},
            "dpo": {key: trained["dpo"][key] for key in ("method", "fingerprint")},
            "selection": {"by": "accuracy on validation rows", "validation": validation},
        },
        "stages": {name: scoring.breakdown(stage_rows) for name, stage_rows in rows.items()},
        "floor": {"question_only": question_only(records["train"], records["test"])},
        "ablation": {"blank_image": scoring.breakdown(blank)} if blank else {},
        "cost": {
            "sft_seconds": trained["sft"]["seconds"],
            "dpo_seconds": trained["dpo"]["seconds"],
            "eval_seconds": seconds,
            "examples_per_second": len(everything) / seconds,
        },
    }
    images = layout.predictions(run).parent
    files.write_jsonl(layout.predictions(run), (_with_image_from(row, folder, images) for row in everything))
    write_gallery(layout.gallery(run), f"{run}: predictions", everything, folder, settings.seed)
    files.write_json(layout.evaluation(run), evaluation)
    return evaluation


def question_only(train: list[dict], test: list[dict]) -> dict:
    """Scores of answering from the question alone."""
    guesses = floor.question_only(train, test)
    return scoring.breakdown(
        [
            {**record, "gold": record["answer"], "answer": guess, "truncated": False}
            for record, guess in zip(test, guesses, strict=True)
        ]
    )


def _sample(records: list[dict], limit: int, seed: int) -> list[dict]:
    return records if len(records) <= limit else random.Random(seed).sample(records, limit)


def _with_image_from(row: dict, folder: Path, target: Path) -> dict:
    """`row` with its image path relative to `target` instead of `folder`."""
    return {**row, "image": os.path.relpath(folder / row["image"], target) if row["image"] else ""}


def write_gallery(path: Path, title: str, rows: list[dict], folder: Path, seed: int) -> None:
    """A page of sampled questions with their pictures and every stage's answer."""
    from workflow_scripts import pages
    from workflow_scripts.datasets.images import open_image

    ids = sorted({row["id"] for row in rows})
    chosen = set(random.Random(seed).sample(ids, min(GALLERY_QUESTIONS, len(ids))))
    shown = [row for row in rows if row["id"] in chosen]
    pictures = {
        image: pages.thumbnail(open_image(folder / image))
        for image in {row["image"] for row in shown}
        if image
    }
    pages.gallery_page(path, title, [{**row, "image": pictures.get(row["image"], "")} for row in shown])


def evaluate_model(
    settings: config.Config,
    layout: Layout,
    path: Path,
    version: str,
    mode: str,
    test_datasets: list[str],
    output: Path,
) -> dict:
    """Score one model on the test records of several sets; writes `output` and the predictions beside it."""
    result: dict = {
        "model_path": str(path),
        "model_version": version,
        "mode": mode,
        "protocol": scoring.PROTOCOL,
    }
    rows: list[dict] = []
    generator = None
    for name in test_datasets:
        run = Run(name, version, mode)
        test = layout.split(run, "test")
        if not test.is_file():
            command = f"--dataset {name} --model_version {version} --mode {mode}"
            raise UserError(
                f"{test}: no such file; make it with `python -m workflow_scripts.convert {command}`"
            )
        examiner = Examiner(settings, run)
        generator = generator or examiner.generator(path)
        rows += examiner.predictions(generator, list(files.read_jsonl(test)), layout.data(run), "model")
    result |= scoring.breakdown(rows)
    files.write_jsonl(output.with_suffix(".predictions.jsonl"), rows)
    files.write_json(output, result)
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = cli.stage_parser(__doc__)
    cli.add_run_flags(parser, required=False)
    parser.add_argument("--model_path", type=Path, help="score this model or adapter alone")
    parser.add_argument(
        "--test_datasets", default="", help="with --model_path: names of data sets, with commas"
    )
    parser.add_argument("--output", type=Path, help="with --model_path: the JSON to write")
    options = parser.parse_args(arguments)
    settings, layout = config.load(options.config), Layout(options.results)
    version, mode = getattr(options, "model_version", None), getattr(options, "mode", None)
    if not version or not mode:
        raise UserError(
            "say --model_version and --mode: they decide how questions are put and answers are read"
        )
    if options.model_path:
        names = [name for name in options.test_datasets.split(",") if name] or [
            getattr(options, "dataset", "")
        ]
        for name in names:
            settings.dataset(name)
        output = options.output or layout.root / "eval" / "models" / f"{options.model_path.name}.json"
        result = evaluate_model(settings, layout, options.model_path, version, mode, names, output)
        print(json.dumps(result["overall"], indent=2))
        logger.info("written: %s", output)
        return 0
    if not hasattr(options, "dataset"):
        raise UserError("say --dataset, or --model_path with --test_datasets")
    run = cli.run_of(options)
    parameters = config.stage_settings(settings, "evaluate")
    with tracking.stage(settings, layout, run, "evaluate", parameters) as record:
        evaluation = evaluate(settings, layout, run)
        record.metrics({key: evaluation[key] for key in ("stages", "floor", "ablation", "cost")})
        record.artifact(layout.evaluation(run))
        record.table(list(files.read_jsonl(layout.predictions(run))), "predictions")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

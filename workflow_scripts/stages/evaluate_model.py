"""Ask and score one model, of the chain or from anywhere, on the test records of several sets."""

import json
import logging
from pathlib import Path
from typing import Any, NotRequired

from workflow_scripts.base import files, gpus, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, METRICS, Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation import answers, asking, prompting, protocols
from workflow_scripts.evaluation.predictions import Breakdown, Prediction
from workflow_scripts.evaluation.questions import HowAsked
from workflow_scripts.models.prompt_styles import AUTO
from workflow_scripts.stages import ask, evaluate

logger = logging.getLogger(__name__)


class ModelEvaluation(Breakdown):
    """The scores of one model on the sets of --test_datasets."""

    model_path: str
    model_version: str
    mode: str
    protocol: str
    limit: NotRequired[int]  # of a try on so many rows of each split of a set
    versions: dict[str, int | None]
    asked: HowAsked
    generation_config: dict[str, dict[str, Any]]  # the checkpoint's own, by set


def evaluate_model(
    settings: Config,
    layout: Layout,
    path: Path,
    version: str,
    mode: str,
    test_datasets: list[str],
    output: Path,
    prompt_style: str = AUTO,
) -> ModelEvaluation:
    """Score one model on the test records of several sets; writes `output` and the predictions beside it.

    `prompt_style` is one of models.prompt_styles, or AUTO.
    """
    tests = {name: _test_records(settings, layout, Run(name, version, mode)) for name in test_datasets}
    untrained = (path / MANIFEST).is_file()  # of a download; what was trained has metrics.json
    rows: list[Prediction] = []
    generation_config: dict[str, dict[str, Any]] = {}
    with locks.one_writer(output, settings.output_in_use), gpus.taken(settings.evaluation.gpus):
        kept = layout.kept_answers()
        examiner = ask.examiner(settings, version, mode, path.resolve().name)
        processor = examiner.processor(path)
        how = prompting.manner(
            examiner,
            path,
            processor,
            tests[test_datasets[0]],
            layout.data(Run(test_datasets[0], version, mode)),
            kept,
            untrained,
            prompt_style,
        )
        for name, records in tests.items():
            folder = layout.data(Run(name, version, mode))
            found = asking.ask(how.examiner, path, processor, how.put(records), folder, "original", kept)
            generation_config[name] = found.checkpoint_settings
            read = answers.predictions(records, answers.rows(records, found.rows), "model", how.read)
            rows += [evaluate.with_image_from(row, folder, output.parent) for row in read]
        result: ModelEvaluation = {
            "model_path": str(path),
            "model_version": version,
            "mode": mode,
            "protocol": protocols.DEFAULT.NAME,
            **({"limit": settings.limit} if settings.limit else {}),  # type: ignore[typeddict-item]
            "versions": {
                **({} if untrained else _version_of_training(path)),
                "ask": versions.RESULTS["ask"],
                "evaluate": versions.RESULTS["evaluate"],
            },
            "asked": how.told,
            "generation_config": generation_config,
            **protocols.breakdown(rows, terminology.load(tuple(settings.terms))),
        }
        files.write_jsonl(output.with_suffix(".predictions.jsonl"), rows)
        files.write_json(output, result)
    return result


def _version_of_training(model: Path) -> dict[str, int | None]:
    """The version of the stage that trained `model`, where its metrics.json tells."""
    path = model / METRICS
    metrics = files.read_json(path) if path.is_file() else {}
    return {metrics["stage"]: metrics.get("version")} if "stage" in metrics else {}


def _test_records(settings: Config, layout: Layout, run: Run) -> list[Record]:
    settings.dataset(run.dataset)
    path = layout.split(run, "test")
    if not path.is_file():
        command = f"--dataset {run.dataset} --model_version {run.model_version} --mode {run.mode}"
        raise UserError(f"{path}: no such file; make it with `python -m workflow_scripts.convert {command}`")
    return list(files.read_jsonl(path))


def stage(
    settings: Config,
    layout: Layout,
    path: Path,
    version: str,
    mode: str,
    test_datasets: list[str],
    output: Path,
    prompt_style: str,
) -> ModelEvaluation:
    """`evaluate_model`, with its numbers printed."""
    settings.checkpoint(version, mode)
    result = evaluate_model(settings, layout, path, version, mode, test_datasets, output, prompt_style)
    print(json.dumps(result["overall"], indent=2))
    logger.info("written: %s", output)
    return result

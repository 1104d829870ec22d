"""Ask one model of a run the test questions, and a trained one those of validation that decide between SFT and DPO."""

import logging
import random
from pathlib import Path

from workflow_scripts.base import environment, files, gpus, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation import answers, asking, prompting, questions
from workflow_scripts.evaluation.answers import AnswersSummary
from workflow_scripts.evaluation.examiner import SERVED_NAME, Examiner
from workflow_scripts.evaluation.questions import Variant

logger = logging.getLogger(__name__)


def examiner(settings: Config, version: str, mode: str, name: str) -> Examiner:
    """What asks the models of a version and mode; a server may know this one by `name`."""
    return Examiner(
        settings.evaluation, settings.data.max_image_side, settings.data.frames, version, mode, name
    )


def models(layout: Layout, run: Run) -> dict[str, Path]:
    """The models of a run, by their names there."""
    return {
        "untrained": layout.model(run.model_version, run.mode),
        "sft": layout.trained("sft", run),
        "dpo": layout.trained("dpo", run),
    }


def ask(settings: Config, layout: Layout, run: Run, model: str, variant: Variant) -> AnswersSummary:
    """Write the answers of `model`, one of questions.MODELS, and their summary."""
    _refuse_one_served_model(settings)
    chosen = answers.final_stage(layout, run, settings.seed)["stage"] if model == "final" else model
    records: list[Record] = list(files.read_jsonl(layout.split(run, "test")))
    if variant == "shuffled":
        records = questions.shuffled(records, settings.seed)
    elif variant == "original" and model != "untrained":
        validation = list(files.read_jsonl(layout.split(run, "validation")))
        records += _sample(validation, settings.evaluation.max_validation_rows, settings.seed)
    path, folder, kept = models(layout, run)[chosen], layout.data(run), layout.kept_answers()
    own = examiner(settings, run.model_version, run.mode, chosen)
    processor = own.processor(path)
    how = prompting.manner(own, path, processor, records, folder, kept, untrained=chosen == "untrained")
    found = asking.ask(how.examiner, path, processor, how.put(records), folder, variant, kept)
    summary: AnswersSummary = {
        "run": str(run),
        "model": chosen,
        "variant": variant,
        "version": versions.RESULTS["ask"],
        "seed": settings.seed,
        "model_fingerprint": answers.model_fingerprint(layout, run, chosen),
        "data_fingerprint": files.read_value(layout.data_summary(run), "fingerprint"),
        "asked": how.told,
        "generation_config": found.checkpoint_settings,
        "n": len(records),
        "asked_now": found.asked,
        "seconds": sum(row["seconds"] for row in found.rows),
        "made": environment.made(),
    }
    answers.write(layout.answers(run, model, variant), answers.rows(records, found.rows), summary)
    return summary


def _refuse_one_served_model(settings: Config) -> None:
    """A UserError where a server would answer by one model for all models of a run."""
    server = settings.evaluation.server if settings.evaluation.backend == "openai" else None
    if server and SERVED_NAME not in server.model:
        raise UserError(
            f"evaluation.server.model {server.model} names one model for all of a run; write {SERVED_NAME} in it, which "
            "stands for untrained, sft and dpo, and serve them by these names"
        )


def _sample(records: list[Record], limit: int, seed: int) -> list[Record]:
    return records if len(records) <= limit else random.Random(seed).sample(records, limit)


def stage(settings: Config, layout: Layout, run: Run, model: str, variant: Variant) -> AnswersSummary:
    """`ask`, on the GPUs of the job."""
    settings.checkpoint(run.model_version, run.mode)
    with (
        locks.one_writer(layout.answers(run, model, variant), settings.output_in_use),
        gpus.taken(settings.evaluation.gpus),
    ):
        summary = ask(settings, layout, run, model, variant)
    logger.info(
        "%s, %s, %s: %d answers, %d of them asked now",
        run,
        model,
        variant,
        summary["n"],
        summary["asked_now"],
    )
    return summary

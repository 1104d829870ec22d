"""Turn the raw files of a data set into training records: `results/data/{run}/{train,validation,test}.jsonl`."""

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from workflow_scripts import cli, config, files, tracking
from workflow_scripts.datasets import readers, records, splits, terminology
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, SPLITS, Example
from workflow_scripts.datasets.thoughts import thought
from workflow_scripts.errors import UserError
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat, escape
from workflow_scripts.paths import Layout, Run

logger = logging.getLogger(__name__)


def convert(settings: config.Config, layout: Layout, run: Run) -> dict:
    """Write the records of `run` and return what was read, kept and dropped."""
    settings.checkpoint(run.model_version, run.mode)
    examples: list[Example] = []
    dropped: list[dict] = []
    read = 0
    for name, source in settings.sources(run.dataset).items():
        rows = list(readers.read(source.reader, layout.raw(name), name, source.columns))
        rows = [row for row in rows if not source.languages or row.language in source.languages]
        read += len(rows)
        kept = _drop_unusable(rows, layout.raw(name), name, settings.data.max_missing_images, dropped)
        examples += kept
    examples = splits.with_validation(examples, settings.data.validation_share, settings.seed)

    by_split = {split: [row for row in examples if row.split == split] for split in SPLITS}
    for split, rows in by_split.items():
        if not rows:
            raise UserError(f"{run}: the {split} split is empty ({read} rows read, {len(dropped)} dropped)")
    answer_format = VERSIONS[run.model_version].answer_format(run.mode)
    folder = layout.data(run)
    for split, rows in by_split.items():
        files.write_jsonl(
            layout.split(run, split), (_record(row, layout, folder, answer_format, settings) for row in rows)
        )
    files.write_jsonl(folder / "dropped.jsonl", dropped)
    files.write_jsonl(folder / "annotations.jsonl", (_annotations(row, layout, folder) for row in examples))
    tidied = files.write_jsonl(
        folder / "tidied.jsonl", (change for row in examples for change in records.tidied(row))
    )
    files.write_jsonl(folder / "knowledge.jsonl", _knowledge(settings, layout, run))
    files.write_json(folder / "dataset_info.json", records.dataset_info(str(run)))
    summary = {
        "run": str(run),
        "read": read,
        "kept": len(examples),
        "dropped": dict(Counter(row["reason"] for row in dropped)),
        "tidied": tidied,
        "rows": {split: len(rows) for split, rows in by_split.items()},
        "fingerprint": files.fingerprint([files.sha256(layout.split(run, split)) for split in SPLITS]),
    }
    files.write_json(folder / "summary.json", summary)
    return summary


def _drop_unusable(
    rows: list[Example], raw: Path, name: str, limit: float, dropped: list[dict]
) -> list[Example]:
    """The rows that can be used; the others go to `dropped` with the reason."""
    present = {image: (raw / image).is_file() for image in {image for row in rows for image in row.images}}
    kept, missing = [], 0
    for row in rows:
        reason = None
        if not all(present[image] for image in row.images):
            reason, missing = "missing image", missing + 1
        elif not row.answer.strip():
            reason = "empty answer"
        elif not row.question.strip():
            reason = "empty question"
        if reason:
            dropped.append(
                {"id": row.id, "source": name, "split": row.split, "reason": reason, "image": row.image}
            )
        else:
            kept.append(row)
    if missing:
        logger.warning(
            "%s: %d of %d rows have no image file; listed in dropped.jsonl", name, missing, len(rows)
        )
    if missing > limit * len(rows):
        example = next(image for image, there in present.items() if not there)
        raise UserError(
            f"{name}: {missing} of {len(rows)} rows have no image file ({raw / example}, for one), more than "
            f"data.max_missing_images = {limit:g}; complete the images or raise the limit"
        )
    return kept


def _record(
    row: Example, layout: Layout, folder: Path, answer_format: AnswerFormat, settings: config.Config
) -> dict:
    worded = {}
    if settings.data.terminology == "canonical":
        worded = {"raw_answer": row.answer}
        terms = terminology.load(tuple(settings.terms))
        row = replace(row, answer=terms.canonical(row.answer, row.language) or row.answer)
    images = [os.path.relpath(layout.raw(row.source) / image, folder) for image in row.images]
    return records.to_record(row, images, _turns(row, answer_format, settings.data.thoughts)) | worded


def _turns(row: Example, answer_format: AnswerFormat, thoughts: str) -> list[tuple[str, str]]:
    """The user's and the assistant's text of each turn, safe inside a dialogue."""
    reason = row.rationale
    if not reason and answer_format.thinking and thoughts == "facts":
        reason = thought(row)
    target = answer_format.write(row.answer, reason)
    if not row.turns:
        return [(records.user_text(escape(row.question), len(row.images)), target)]
    users = [IMAGE_PLACEHOLDER.join(map(escape, turn.user.split(IMAGE_PLACEHOLDER))) for turn in row.turns]
    earlier = [answer_format.write(turn.answer, turn.rationale) for turn in row.turns[:-1]]
    return list(zip(users, [*earlier, target], strict=True))


def _annotations(row: Example, layout: Layout, folder: Path) -> dict:
    mask = os.path.relpath(layout.raw(row.source) / row.mask, folder) if row.mask else ""
    return records.annotations(row, mask)


def _knowledge(settings: config.Config, layout: Layout, run: Run) -> Iterator[dict]:
    for name, source in settings.sources(run.dataset).items():
        for fact in readers.knowledge(source.reader, layout.raw(name)):
            yield {"source": name, **fact}


def main(arguments: list[str] | None = None) -> int:
    parser = cli.stage_parser(__doc__)
    cli.add_run_flags(parser)
    options = parser.parse_args(arguments)
    run, layout, settings = cli.run_of(options), Layout(options.results), config.load(options.config)
    with tracking.stage(
        settings, layout, run, "convert", config.convert_settings(settings, run.dataset)
    ) as record:
        summary = convert(settings, layout, run)
        record.metrics(summary)
        record.artifact(layout.data(run) / "summary.json")
    logger.info(
        "%s: read %d rows, kept %d, dropped %s, tidied the white space of %d texts",
        run,
        summary["read"],
        summary["kept"],
        summary["dropped"] or "none",
        summary["tidied"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

"""Turn the raw files of a data set into training records: `results/data/{run}/{train,validation,test}.jsonl`.

The raw files are read twice: once to decide, image by image, what becomes of the rows, and once to write them.
Neither reading holds more than one raw file.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from workflow_scripts import cli, config, files, tracking
from workflow_scripts.config import Source
from workflow_scripts.datasets import mixing, records, splits
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.datasets.records import SPLITS, Example
from workflow_scripts.datasets.splits import Survey
from workflow_scripts.datasets.thoughts import thought
from workflow_scripts.errors import UserError
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import escape
from workflow_scripts.paths import Layout, Run

logger = logging.getLogger(__name__)

NOT_DRAWN = "not drawn by the mixture"


def convert(settings: config.Config, layout: Layout, run: Run) -> dict:
    """Write the records of `run` and return what was read, kept and dropped."""
    settings.checkpoint(run.model_version, run.mode)
    sources = settings.sources(run.dataset)
    limit = settings.data.max_missing_images
    surveys = {name: _survey(name, source, layout.raw(name), limit) for name, source in sources.items()}
    _divide(surveys, settings, layout)
    _mix(surveys, settings, run)
    sizes = sum((survey.sizes() for survey in surveys.values()), Counter())
    read = sum(survey.read for survey in surveys.values())
    for split in SPLITS:
        if not sizes[split]:
            raise UserError(f"{run}: the {split} split is empty ({read} rows read)")

    folder = layout.data(run)
    counts, dropped, copies = Counter(), Counter(), 0
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(files.jsonl_writer(layout.split(run, split))) for split in SPLITS
        }
        drop = stack.enter_context(files.jsonl_writer(folder / "dropped.jsonl"))
        make = _RecordMaker(settings, layout, run)
        for name, source in sources.items():
            for row, split, times, reason in _placed(surveys[name], source, layout.raw(name)):
                if reason:
                    drop(
                        {
                            "id": row.id,
                            "source": name,
                            "split": row.split,
                            "reason": reason,
                            "image": row.image,
                        }
                    )
                    dropped[reason] += 1
                for number in range(times):
                    writers[split](make(row, name, split, number))
                counts[split] += times
                copies += max(0, times - 1)
    files.write_json(folder / "dataset_info.json", records.dataset_info(str(run)))
    summary = {
        "run": str(run),
        "read": read,
        "kept": counts.total(),
        "copies": copies,
        "dropped": dict(dropped),
        "rows": {split: counts[split] for split in SPLITS},
        "fingerprint": files.fingerprint([files.sha256(layout.split(run, split)) for split in SPLITS]),
    }
    files.write_json(folder / "summary.json", summary)
    return summary


class _Usability:
    """Why a row cannot be used, if so; each image is looked for once."""

    def __init__(self, raw: Path) -> None:
        self._raw = raw
        self._present: dict[str, bool] = {}

    def problem(self, row: Example) -> str | None:
        if row.image not in self._present:
            self._present[row.image] = (self._raw / row.image).is_file()
        if not self._present[row.image]:
            return "missing image"
        if not row.answer.strip():
            return "empty answer"
        return None if row.question.strip() else "empty question"


def _kept_languages(source: Source, row: Example) -> bool:
    return not source.languages or row.language in source.languages


def _survey(name: str, source: Source, raw: Path, limit: float) -> Survey:
    """The first reading of a source; too many missing images are a UserError."""
    survey, usability = Survey(), _Usability(raw)
    missing, example = 0, ""
    for row in READERS[source.reader](raw):
        if row.split == "test":
            survey.tested.add(row.image)
        if not _kept_languages(source, row):
            continue
        survey.read += 1
        problem = usability.problem(row)
        if problem == "missing image":
            missing, example = missing + 1, example or row.image
        if not problem:
            survey.rows[row.split, row.image] += 1
    if missing:
        logger.warning(
            "%s: %d of %d rows have no image file; listed in dropped.jsonl", name, missing, survey.read
        )
    if missing > limit * survey.read:
        raise UserError(
            f"{name}: {missing} of {survey.read} rows have no image file ({raw / example}, for one), more than "
            f"data.max_missing_images = {limit:g}; complete the images or raise the limit"
        )
    return survey


def _divide(surveys: dict[str, Survey], settings: config.Config, layout: Layout) -> None:
    """Decide which images are removed and which train images become validation."""
    data = settings.data
    if data.splits == "image_disjoint":
        own = {
            layout.raw(name) / image: (name, image)
            for name, survey in surveys.items()
            for image in dict.fromkeys(survey.images("train") + survey.images("validation"))
        }
        tested = {layout.raw(name) / image for name, survey in surveys.items() for image in survey.tested}
        for path, reason in splits.leaking_images(own, tested, data.near_duplicates == "remove").items():
            name, image = own[path]
            surveys[name].removed[image] = reason
    for name, survey in surveys.items():
        if not survey.images("validation"):
            train = set(survey.images("train")) - set(survey.removed)
            seed = f"{settings.seed}-{name}"
            survey.moved = splits.validation_images(train, survey.tested, data.validation_share, seed)


def _mix(surveys: dict[str, Survey], settings: config.Config, run: Run) -> None:
    """Decide how often each train row of a combination is written."""
    mixture = config.mixture_settings(settings, run.dataset)
    if not any(mixture.values()):
        return
    rows = {name: survey.sizes()["train"] for name, survey in surveys.items()}
    for name, wanted in mixing.sizes(rows, **mixture).items():
        surveys[name].copies = mixing.copies(rows[name], wanted, f"{settings.seed}-{name}")


def _placed(survey: Survey, source: Source, raw: Path) -> Iterator[tuple[Example, str, int, str | None]]:
    """The second reading of a source: each row, its split, how often it is written and, if never, why."""
    usability = _Usability(raw)
    copies = iter(survey.copies or ())
    for row in READERS[source.reader](raw):
        if not _kept_languages(source, row):
            continue
        split, reason = survey.place(row.split, row.image)
        reason = usability.problem(row) or reason
        times = 0 if reason else 1
        if times and split == "train" and survey.copies is not None:
            times = next(copies)
            reason = None if times else NOT_DRAWN
        yield row, split, times, reason


class _RecordMaker:
    """Makes the record of an example for one run."""

    def __init__(self, settings: config.Config, layout: Layout, run: Run) -> None:
        self._format = VERSIONS[run.model_version].answer_format(run.mode)
        self._thoughts = self._format.thinking and settings.data.thoughts == "facts"
        self._raw = {
            name: os.path.relpath(layout.raw(name), layout.data(run))
            for name in settings.sources(run.dataset)
        }

    def __call__(self, row: Example, source: str, split: str, copy: int) -> dict:
        target = self._format.write(row.answer, thought(row) if self._thoughts else "")
        image = os.path.join(self._raw[source], row.image)
        record = records.to_record(row, image, escape(row.question), target)
        return record | {"split": split, "id": mixing.copy_id(row.id, copy)}


def _parameters(settings: config.Config, run: Run) -> dict:
    return config.stage_settings(settings, "convert") | config.mixture_settings(settings, run.dataset)


def main(arguments: list[str] | None = None) -> int:
    parser = cli.stage_parser(__doc__)
    cli.add_run_flags(parser)
    options = parser.parse_args(arguments)
    run, layout, settings = cli.run_of(options), Layout(options.results), config.load(options.config)
    with tracking.stage(settings, layout, run, "convert", _parameters(settings, run)) as record:
        summary = convert(settings, layout, run)
        record.metrics(summary)
        record.artifact(layout.data(run) / "summary.json")
    logger.info(
        "%s: read %d rows, kept %d, dropped %s",
        run,
        summary["read"],
        summary["kept"],
        summary["dropped"] or "none",
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

"""Turn the raw files of a data set into training records: `results/data/{run}/{train,validation,test}.jsonl`.

The raw files are read twice: once to decide, image by image, what becomes of the rows, and once to write them; a limited run
reads them in between, to draw its rows. No reading holds more than one raw file.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

from workflow_scripts import tracking
from workflow_scripts.base import files, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import ANNOTATIONS, DROPPED, Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config, Source
from workflow_scripts.datasets import limiting, mixing, readers, records, splits
from workflow_scripts.datasets.limiting import Drawable
from workflow_scripts.datasets.records import SPLITS, Example
from workflow_scripts.datasets.splits import Survey
from workflow_scripts.stages.record_making import RecordMaker

logger = logging.getLogger(__name__)

MISSING_IMAGE, NOT_DRAWN = "missing image", "not drawn by the mixture"
OVER_LIMIT = "over the limit of a try"
REASONS = (
    MISSING_IMAGE,
    "empty answer",
    "empty question",
    splits.IN_A_TEST_SET,
    splits.OF_A_TESTED_PATIENT,
    splits.LIKE_A_TEST_IMAGE,
    splits.IN_A_VALIDATION_SET,
    splits.OF_A_VALIDATED_PATIENT,
    splits.LIKE_A_VALIDATION_IMAGE,
    NOT_DRAWN,
    OVER_LIMIT,
)


def convert(settings: Config, layout: Layout, run: Run) -> dict[str, Any]:
    """Write the records of `run` and return what was read, kept and dropped."""
    settings.checkpoint(run.model_version, run.mode)
    sources = settings.sources(run.dataset)
    limit = settings.data.max_missing_images
    surveys = {name: _survey(name, source, layout.raw(name), limit) for name, source in sources.items()}
    _divide(surveys, settings, layout)
    if settings.limit:
        _limit(surveys, settings, layout, run, settings.limit)
    _mix(surveys, settings, run)
    sizes = sum((survey.sizes() for survey in surveys.values()), Counter())
    read = sum(survey.read for survey in surveys.values())
    unusable = sum((survey.unusable for survey in surveys.values()), Counter())
    for split in SPLITS:
        if not sizes[split]:
            left_out = "".join(f", {count} left out for {problem}" for problem, count in unusable.items())
            raise UserError(
                f"{run}: the {split} split is empty ({read} rows read{left_out}); a custom set states splits by its column "
                "'split' or by the names of tables, folders and images"
            )

    folder = layout.data(run)
    counts = _write(surveys, settings, layout, run)
    files.write_json(folder / "dataset_info.json", records.dataset_info(str(run)))
    rows = {split: counts[split] for split in SPLITS}
    summary = {
        "run": str(run),
        "version": versions.RESULTS["convert"],
        "read": read,
        "kept": sum(rows.values()),
        "copies": counts["copies"],
        "dropped": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "tidied": counts["tidied"],
        "rows": rows,
        "limit": settings.limit,
        "fingerprint": files.fingerprint([files.sha256(layout.split(run, split)) for split in SPLITS]),
    }
    files.write_json(layout.data_summary(run), summary)
    return summary


def _write(surveys: dict[str, Survey], settings: Config, layout: Layout, run: Run) -> Counter[str]:
    """Write every file of rows; counts rows by split, dropped ones by reason, "copies" and "tidied" texts."""
    folder, make = layout.data(run), RecordMaker(settings, layout, run)
    counts: Counter[str] = Counter()
    with ExitStack() as stack:

        def writer(name: str) -> Callable[[Mapping[str, object]], object]:
            return stack.enter_context(files.jsonl_writer(folder / name))

        records_of = {split: writer(layout.split(run, split).name) for split in SPLITS}
        drop, annotate, tidy, know = map(writer, (DROPPED, ANNOTATIONS, "tidied.jsonl", "knowledge.jsonl"))
        for name, source in settings.sources(run.dataset).items():
            for row, split, times, reason in _placed(surveys[name], source, layout.raw(name), name):
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
                    counts[reason] += 1
                    continue
                for number in range(times):
                    records_of[split](made := make(row, split, number))
                    annotate({**make.annotations(row), "id": made["id"]})
                for change in records.tidied(row):
                    tidy(change)
                    counts["tidied"] += 1
                counts[split] += times
                counts["copies"] += times - 1
            for fact in readers.knowledge(source.reader, layout.raw(name)):
                know({"source": name, **fact})
    return counts


class _Usability:
    """Why a row cannot be used, if so; each image is looked for once."""

    def __init__(self, raw: Path) -> None:
        self._raw = raw
        self._present: dict[str, bool] = {}

    def problem(self, row: Example) -> str | None:
        for image in row.images:
            if image not in self._present:
                self._present[image] = os.path.isfile(self._raw / image)
            if not self._present[image]:
                return MISSING_IMAGE
        if not row.answer.strip():
            return "empty answer"
        return None if row.question.strip() else "empty question"


def _kept_languages(source: Source, row: Example) -> bool:
    return not source.languages or row.language in source.languages


def _survey(name: str, source: Source, raw: Path, limit: float) -> Survey:
    """The first reading of a source; too many missing images are a UserError."""
    survey, usability = Survey(), _Usability(raw)
    missing, example = 0, ""
    for row in readers.read(source.reader, raw, name, source.columns):
        if row.split == "test":
            survey.tested.update(row.images)
            survey.tested_groups.add(row.group)
        if not _kept_languages(source, row):
            continue
        survey.read += 1
        problem = usability.problem(row)
        if problem == MISSING_IMAGE:
            missing, example = missing + 1, example or row.image
        if problem:
            survey.unusable[problem] += 1
        else:
            survey.rows[row.split, row.group, row.images] += 1
    if missing:
        logger.warning(
            "%s: %d of %d rows have no image file; listed in %s", name, missing, survey.read, DROPPED
        )
    if missing > limit * survey.read:
        raise UserError(
            f"{name}: {missing} of {survey.read} rows have no image file ({raw / example}, for one), more than "
            f"data.max_missing_images = {limit:g}; complete the images or raise the limit"
        )
    return survey


def _divide(surveys: dict[str, Survey], settings: Config, layout: Layout) -> None:
    """Decide which images are removed and which train images become validation."""
    data = settings.data
    similar = partial(splits.similar_images, frames=data.frames)
    disjoint, chosen_from = data.splits == "image_disjoint", ("train", "validation")
    same = partial(splits.same_images, content=cache(splits.content))  # each file is read once
    if disjoint:
        tested = {layout.raw(name) / image for name, survey in surveys.items() for image in survey.tested}
        # From both, since train images may become validation.
        _remove_images(surveys, layout, chosen_from, same, tested, splits.IN_A_TEST_SET)
        for survey in surveys.values():
            for split in chosen_from:
                survey.remove_groups(split, survey.tested_groups, splits.OF_A_TESTED_PATIENT)
        if data.near_duplicates == "remove":
            _remove_images(surveys, layout, chosen_from, similar, tested, splits.LIKE_A_TEST_IMAGE)
    for name, survey in surveys.items():
        if not survey.groups("validation"):
            seed = f"{settings.seed}-{name}"
            survey.moved = splits.validation_groups(
                survey.groups("train"), survey.tested_groups, data.validation_share, seed
            )
    if disjoint:  # the model is chosen by images that it has not seen
        validated = set(_images(surveys, layout, "validation"))
        _remove_images(surveys, layout, ("train",), same, validated, splits.IN_A_VALIDATION_SET)
        for survey in surveys.values():
            survey.remove_groups("train", survey.groups("validation"), splits.OF_A_VALIDATED_PATIENT)
        if data.near_duplicates == "remove":
            _remove_images(surveys, layout, ("train",), similar, validated, splits.LIKE_A_VALIDATION_IMAGE)


def _images(surveys: dict[str, Survey], layout: Layout, split: str) -> dict[Path, tuple[str, str]]:
    """The files of the images that a split gets, each with its source and its path there."""
    return {
        layout.raw(name) / image: (name, image)
        for name, survey in surveys.items()
        for image in survey.images(split)
    }


def _remove_images(
    surveys: dict[str, Survey],
    layout: Layout,
    removed_from: tuple[str, ...],
    alike: Callable[[Collection[Path], Collection[Path]], set[Path]],
    held: set[Path],
    reason: str,
) -> None:
    """Remove from splits the images that are `alike` to those that another split has `held`."""
    own = {path: place for split in removed_from for path, place in _images(surveys, layout, split).items()}
    for path in alike(own, held):
        name, image = own[path]
        for split in removed_from:
            surveys[name].removed[split][image] = reason


def _mix(surveys: dict[str, Survey], settings: Config, run: Run) -> None:
    """Decide how often each train row of a combination is written."""
    mixture = dependencies.mixture_settings(settings, run.dataset)
    if not any(mixture.values()):
        return
    rows = {name: survey.sizes()["train"] for name, survey in surveys.items()}
    for name, wanted in mixing.sizes(rows, **mixture).items():
        surveys[name].copies = mixing.copies(rows[name], wanted, f"{settings.seed}-{name}")


def _limit(surveys: dict[str, Survey], settings: Config, layout: Layout, run: Run, limit: int) -> None:
    """Decide which rows a limited run keeps: of each split of a source open and closed ones in each language."""
    for name, source in settings.sources(run.dataset).items():
        found: dict[str, list[Drawable]] = {split: [] for split in SPLITS}
        for number, row, split, reason in _divided(surveys[name], source, layout.raw(name), name):
            if not reason:
                found[split].append(Drawable(number, row.group, (row.answer_type, row.language)))
        surveys[name].kept = {
            split: limiting.choose(rows, limit, f"{settings.seed}-{name}-{split}")
            for split, rows in found.items()
        }


def _divided(
    survey: Survey, source: Source, raw: Path, name: str
) -> Iterator[tuple[int, Example, str, str | None]]:
    """A further reading of a source: the number of each row, the row, its split and, where it is left out, why."""
    usability = _Usability(raw)
    for number, row in enumerate(readers.read(source.reader, raw, name, source.columns)):
        if _kept_languages(source, row):
            split, reason = survey.place(row.split, row.group, row.images)
            yield number, row, split, usability.problem(row) or reason


def _placed(
    survey: Survey, source: Source, raw: Path, name: str
) -> Iterator[tuple[Example, str, int, str | None]]:
    """The last reading of a source: each row, its split, how often it is written and, if never, why."""
    copies = iter(survey.copies or ())
    for number, row, split, reason in _divided(survey, source, raw, name):
        if survey.kept is not None and number not in survey.kept[split]:
            reason = reason or OVER_LIMIT
        times = 0 if reason else 1
        if times and split == "train" and survey.copies is not None:
            times = next(copies)
            reason = None if times else NOT_DRAWN
        yield row, split, times, reason


def stage(settings: Config, layout: Layout, run: Run) -> dict[str, Any]:
    """`convert`, recorded by the trackers."""
    parameters = dependencies.convert_settings(settings, run.dataset)
    with (
        locks.one_writer(layout.data(run), settings.output_in_use),
        tracking.stage(settings, layout, run, "convert", parameters) as record,
    ):
        summary = convert(settings, layout, run)
        record.metrics({"data": summary})
        record.artifact(layout.data_summary(run))
    dropped = summary["dropped"] or "none"
    logger.info("%s: read %d rows, kept %d, dropped %s", run, summary["read"], summary["kept"], dropped)
    return summary

"""Check the records of a run as a stranger reads them: `results/data/{run}/validation.json` and a page."""

import logging
from array import array
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from workflow_scripts import tracking
from workflow_scripts.base import files, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import ANNOTATIONS, SUMMARY, Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import mixing
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.counts import Statistics
from workflow_scripts.datasets.checks.leaks import SPLIT_PAIRS, Ledger
from workflow_scripts.datasets.checks.structure import Picture, Pictures, PlacedRecord, Problems
from workflow_scripts.datasets.pairs import user_pairs
from workflow_scripts.datasets.pictures import near_duplicates
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.pictures.images import open_image
from workflow_scripts.datasets.pictures.near_duplicates import MOST_BITS
from workflow_scripts.datasets.records import SPLITS, image_key
from workflow_scripts.datasets.tokens import tokens
from workflow_scripts.evaluation.protocols import strict
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.pages import rendering, thumbnails
from workflow_scripts.pages.samples import Sample, Sampler, Viewer

logger = logging.getLogger(__name__)

BATCH = 1000  # rows whose texts are given to the tokenizer at once
SHOWN_PAIRS = 12  # near-duplicates that the page shows
FAILED_PAGE, NEAR_DUPLICATES = "validation-failed.html", "near_duplicates.jsonl"
PAGE_ONLY = ("samples", "near_duplicate_pictures")
CHOSEN_BY_THE_SEEN = "early stopping and the choice between SFT and DPO then go by what was trained on, and favour what is memorised"

Patient = tuple[str, str]  # source and name
Shown = tuple[PlacedRecord, list[Picture]]  # a row with its pictures


def validate(settings: Config, layout: Layout, run: Run) -> dict[str, Any]:
    """Check the records of `run`, write summary and page; errors make one UserError and another page."""
    folder = layout.data(run)
    verdict, page = layout.validation(run), layout.validation_page(run)
    failed_page, near = folder / FAILED_PAGE, folder / NEAR_DUPLICATES
    parameters = dependencies.stage_settings(settings, "validate")
    with (
        locks.one_writer(folder, settings.output_in_use),
        tracking.stage(settings, layout, run, "validate", parameters) as record,
    ):
        for stale in (verdict, page, failed_page, near):
            stale.unlink(missing_ok=True)
        examination = Examination(settings, layout, run)
        summary = examination.result()
        written = page if summary["passed"] else failed_page
        rendering.validation_page(written, summary)
        # Histograms are on the page; a tracker's numbers are those that runs are compared by.
        record.metrics(
            {
                "data": {
                    **{key: summary[key] for key in ("read", "kept")},
                    "longest_tokens": summary["token_lengths"].get("max"),
                    **{
                        split: {"rows": counts["rows"], "images": counts.get("images")}
                        for split, counts in summary["counts"].items()
                    },
                }
            }
        )
        record.artifact(written, "pages", pictures=True)
        if not summary["passed"]:
            raise UserError(_refusal(folder, failed_page, examination.errors))
        files.write_json(verdict, {key: value for key, value in summary.items() if key not in PAGE_ONLY})
    return summary


class Examination:
    """One reading of the records of a run, row by row; some 50 bytes of each are kept."""

    def __init__(self, settings: Config, layout: Layout, run: Run) -> None:
        self.settings, self.layout, self.run = settings, layout, run
        self.folder = layout.data(run)
        self.dialogue = _dialogue(settings, layout, run)
        self.reader = VERSIONS[run.model_version].answer_format(run.mode)
        self.errors, self.warnings = Problems(), Problems()
        self.pictures = Pictures(
            self.folder, self.dialogue.image_tokens, self.errors, self.warnings, settings.data.frames
        )
        self.ledger = Ledger()
        self.statistics = Statistics(strict.polarity, lambda answer: " ".join(tokens(answer)))
        self.sampler = Sampler(settings.seed)
        self.patients = _patients(self.folder)
        self.splits_of_patients: dict[Patient, set[str]] = {}
        self.test_images: dict[str, set[str]] = {}  # by content, as `image_key` has them
        self.lengths = array("I")
        self.copies = 0

    def result(self) -> dict[str, Any]:
        """Everything that `rendering.validation_page` shows; PAGE_ONLY keys are of no use elsewhere."""
        from workflow_scripts.models.lengths import distribution

        stated = files.read_object(self.folder / SUMMARY, "read", "kept", "copies", "dropped")
        for batch in _batches(self._usable_rows()):
            self._measure(batch)
        structure.check_summary(self.folder, stated, self.copies, self.errors)
        self._check_repeats()
        self._check_shared_images()
        hashes = self.pictures.decode() if self.settings.data.decode_images else None
        self._check_user_pairs(hashes or {})
        found = None if hashes is None else self._near_duplicates(hashes)
        samples = list(self._samples())
        return {
            "run": str(self.run),
            "version": versions.RESULTS["validate"],
            "passed": not self.errors,
            "splits": self.settings.data.splits,
            "counts": self.statistics.counts(),
            **{key: stated[key] for key in ("read", "kept", "copies", "dropped")},
            "errors": self.errors.listed(),
            "warnings": self.warnings.listed(),
            "token_lengths": distribution(self.lengths, self.settings.data.max_tokens),
            "answers": self.statistics.answers(),
            "leaks": [self.ledger.matrix(held, tested) for held, tested in SPLIT_PAIRS],
            "near_duplicates": None if found is None else {"most_bits": MOST_BITS, "pairs": len(found)},
            "near_duplicate_pictures": [
                _side_by_side(*pair, self.settings.data.frames) for pair in (found or [])[:SHOWN_PAIRS]
            ],
            "leaked_images": self._leaked_images(hashes),
            "samples": samples,
        }

    def _usable_rows(self) -> Iterator[Shown]:
        """The rows, each with its pictures, that are as training needs them; all are counted."""
        for split in SPLITS:
            for row in structure.read(self.layout.split(self.run, split), split, self.errors):
                shown = self.pictures.of(row)
                contents = [
                    picture.digest if picture else image
                    for picture, image in zip(shown, row.record["images"], strict=True)
                ]
                copy = mixing.is_copy(row.record["id"])
                self.ledger.add(split, row.line, row.record, contents, copy)
                self.statistics.add(split, row.record)
                if patient := self.patients.get(row.record["id"]):
                    whose = row.record["source"], patient
                    self.splits_of_patients.setdefault(whose, set()).add(split)
                if split == "test":
                    key = image_key(row.record["source"], row.record["image_id"])
                    for content in contents:
                        self.test_images.setdefault(content, set()).add(key)
                self.copies += copy
                good = [picture for picture in shown if picture]
                if self._is_well_formed(row) and len(good) == len(shown):
                    self.sampler.add(row)
                    yield row, good

    def _is_well_formed(self, row: PlacedRecord) -> bool:
        """Whether turns, placeholders and answer are right; the first that is not becomes an error."""
        record = row.record
        problem = structure.dialogue_problem(record["messages"], record["images"], last="assistant")
        if problem is None:
            answer = self.reader.read(record["messages"][-1]["content"])
            if answer == record["answer"]:
                return True
            problem = "the answer cannot be read back", f"{record['answer']!r} is read as {answer!r}"
        kind, detail = problem
        self.errors.add(kind, f"{row.place}: {detail}")
        return False

    def _measure(self, batch: list[Shown]) -> None:
        """Note the rows' lengths in tokens; one over the limit is an error."""
        from workflow_scripts.models.lengths import lengths

        limit = self.settings.data.max_tokens
        tokens = [[picture.tokens for picture in shown] for _, shown in batch]
        found = lengths([row.record for row, _ in batch], tokens, self.dialogue)
        self.lengths.extend(found)
        for (row, _), length in zip(batch, found, strict=True):
            if length > limit:
                kind = f"longer than data.max_tokens = {limit} (raise it, or lower data.max_image_side)"
                self.errors.add(kind, f"{row.place}: {length} tokens")

    def _check_repeats(self) -> None:
        for place, earlier in self.ledger.repeated_ids():
            self.errors.add("duplicate id", f"{place}: as in {earlier}")
        for place, earlier in self.ledger.repeated_rows():
            self.warnings.add("same image, question and answer", f"{place}: as in {earlier}")

    def _check_shared_images(self) -> None:
        """Images and patients in two splits: a warning by official splits, an error where they were to be apart."""
        problems = self.errors if self.settings.data.splits == "image_disjoint" else self.warnings
        for held, tested in SPLIT_PAIRS:
            contents, rows = self.ledger.shared_images(held, tested)
            total = self.statistics.rows(tested)
            meaning = "" if tested == "test" else f"; {CHOSEN_BY_THE_SEEN}"
            kind = f"image in {held} and {tested} ({rows:,} of {total:,} {tested} rows){meaning}"
            for picture in self.pictures.good():
                if picture.digest in contents and tested in picture.splits:
                    problems.add(kind, picture.name)
            for (source, patient), found in self.splits_of_patients.items():
                if {held, tested} <= found:
                    problems.add(f"patient in {held} and {tested}{meaning}", f"{source}: {patient}")

    def _check_user_pairs(self, hashes: dict[str, bytes]) -> None:
        """The user's own preference pairs, before hours of training lead up to them."""
        tested = {picture.digest for picture in self.pictures.good() if "test" in picture.splits}
        # What the run trains on anyway may look like a test image, as neighbouring slices do.
        trained = {picture.digest for picture in self.pictures.good()} - tested
        tested_looks = {
            picture.name: hashes[picture.digest]
            for picture in self.pictures.good()
            if picture.digest in tested & hashes.keys()
        }
        frames = self.settings.data.frames
        examine = partial(user_pairs.examine, trained=trained, tested=tested_looks, frames=frames)
        same, earlier = strict.same_when_read(self.reader.read), user_pairs.Earlier()
        for path in self.settings.preferences.files.get(self.run.dataset, []):
            try:
                deque(user_pairs.read(path, self.reader.rewrite, same, tested, examine, earlier), maxlen=0)
            except UserError as error:
                for line in str(error).splitlines():
                    self.errors.add("preference pair that cannot be used", line, always=True)

    def _near_duplicates(self, hashes: dict[str, bytes]) -> list[tuple[int, Picture, Picture]]:
        """(bits that differ, image, test image) of each near-duplicate of a test image in train or validation.

        All are written to near_duplicates.jsonl.
        """
        pictures = {picture.digest: picture for picture in reversed(self.pictures.good())}
        splits = self._splits_by_content()
        trained = {digest: bits for digest, bits in hashes.items() if "test" not in splits[digest]}
        tested = {digest: bits for digest, bits in hashes.items() if "test" in splits[digest]}
        found = [
            (bits, pictures[one], pictures[other])
            for bits, one, other in near_duplicates.pairs(trained, tested)
        ]
        rows = [{"bits": bits, "image": one.name, "test_image": other.name} for bits, one, other in found]
        files.write_jsonl(self.folder / NEAR_DUPLICATES, rows)
        for row in rows:
            kind = "image in train or validation that looks like a test image"
            self.warnings.add(
                kind, f"{row['image']}: as {row['test_image']} ({row['bits']} of 256 bits differ)"
            )
        return found

    def _leaked_images(self, hashes: dict[str, bytes] | None) -> dict[str, list[str] | None]:
        """The test images, as `image_key` has them, that train or validation has too, or that look like one of theirs.

        Unlike the listed near-duplicates, these may look like an image that is a test image besides. None: not looked for.
        """
        splits = self._splits_by_content()
        exact = {content for content, found in splits.items() if "test" in found and len(found) > 1}
        near = None
        if hashes is not None:
            held = {content: bits for content, bits in hashes.items() if splits[content] - {"test"}}
            clean = {content: bits for content, bits in hashes.items() if splits[content] == {"test"}}
            near = {content for _, _, content in near_duplicates.pairs(held, clean)}
        return {
            "exact": self._keys(exact),
            "near_duplicates": None if near is None else self._keys(near),
        }

    def _keys(self, contents: set[str]) -> list[str]:
        return sorted({key for content in contents for key in self.test_images[content]})

    def _splits_by_content(self) -> dict[str, set[str]]:
        splits: dict[str, set[str]] = {}
        for picture in self.pictures.good():
            splits.setdefault(picture.digest, set()).update(picture.splits)
        return splits

    def _samples(self) -> Iterator[Sample]:
        """What the model sees of a few rows; an image that turns out damaged is an error."""
        viewer = Viewer(self.dialogue, self.folder)
        for row in self.sampler.rows():
            try:
                yield viewer.show(row)
            except UserError as error:
                if not self.settings.data.decode_images:  # else it is known already
                    self.errors.add("unreadable image", f"{row.place}: {error}")


def _patients(folder: Path) -> dict[str, str]:
    """The patient of each record, by its id, where the set states one."""
    path = folder / ANNOTATIONS
    rows = files.read_jsonl(path) if path.is_file() else ()
    return {row["id"]: row["patient"] for row in rows if "patient" in row}


def _batches(rows: Iterator[Shown]) -> Iterator[list[Shown]]:
    batch: list[Shown] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _side_by_side(bits: int, one: Picture, other: Picture, frames: FrameRule) -> dict[str, Any]:
    return {
        "bits": bits,
        "names": [one.name, other.name],
        "splits": [", ".join(sorted(picture.splits)) for picture in (one, other)],
        "images": [thumbnails.thumbnail(open_image(picture.path, frames)) for picture in (one, other)],
    }


def _dialogue(settings: Config, layout: Layout, run: Run) -> Dialogue:
    from workflow_scripts.models import processors

    settings.checkpoint(run.model_version, run.mode)
    folder = layout.model(run.model_version, run.mode)
    if not folder.is_dir():
        raise UserError(f"{folder}: no model here, whose tokenizer is needed; download it first")
    processor = processors.load(
        folder, VERSIONS[run.model_version], settings.data.max_image_side, settings.data.frames
    )
    return Dialogue(processor, run.model_version, run.mode)


def _refusal(folder: Path, page: Path, errors: Problems) -> str:
    total = errors.total()
    advice = f"{folder}: {total} error(s); mend what the lines name and convert again. As a page: {page}"
    return "\n".join([advice, *errors.lines()])


def stage(settings: Config, layout: Layout, run: Run) -> dict[str, Any]:
    """`validate`, and what it found in one line."""
    summary = validate(settings, layout, run)
    rows = sum(counts["rows"] for counts in summary["counts"].values())
    warnings = "; ".join(f"{problem['kind']}: {problem['count']}" for problem in summary["warnings"])
    longest = summary["token_lengths"]["max"]
    logger.info("%s: %d good rows, longest %d tokens, warnings: %s", run, rows, longest, warnings or "none")
    return summary

"""Collect preference pairs for DPO from train questions: `results/preferences/{run}.jsonl`, and a page of some.

The SFT model's own wrong answers, answers made wrong by rules, and the user's own pairs. No pair shows an image
that a test question uses, under whatever name it lies there. What DPO is validated on are answers made wrong by
rules, about validation images that SFT has not seen: `results/preferences/{run}.validation.jsonl`.
"""

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from workflow_scripts import tracking
from workflow_scripts.base import files, gpus, locks, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets import mixing, terminology
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.structure import Problems
from workflow_scripts.datasets.pairs import rules as pairs
from workflow_scripts.datasets.pairs import states, user_pairs
from workflow_scripts.datasets.pairs.rules import OWN_ANSWER, Answers, Pair
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, PreferenceRecord, Record
from workflow_scripts.datasets.tokens import tokens
from workflow_scripts.evaluation.protocols import strict
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat, unescape

SHOWN_PAIRS = 50  # of each origin, on the page
LARGEST_SHARE = 0.1  # pairs for validation, of preferences.max_pairs

logger = logging.getLogger(__name__)


class HeldOut:
    """The images of some splits of a run, the test rows alone for one, known by their bytes: a second name hides nothing."""

    def __init__(self, layout: Layout, run: Run, *splits: str) -> None:
        self._digest = cache(files.sha256)
        folder = layout.data(run)
        self.digests = {
            self._digest(folder / image)
            for split in splits
            for record in files.read_jsonl(layout.split(run, split))
            for image in record["images"]
        }

    def among(self, images: Iterable[str], folder: Path) -> list[str]:
        """Those of `images`, relative to `folder`, that a row of the splits shows."""
        return [image for image in images if self._digest(folder / image) in self.digests]


def preferences(settings: Config, layout: Layout, run: Run, sft_model: Path) -> dict[str, int]:
    """Write the pairs of `run`; returns how many there are of each origin."""
    held_out = HeldOut(layout, run, "test")
    answer_format = VERSIONS[run.model_version].answer_format(run.mode)
    rows = _found_rows(settings, layout, run, sft_model, held_out, answer_format)
    _check(rows, answer_format)
    earlier = user_pairs.Earlier()
    for file in settings.preferences.files.get(run.dataset, []):
        given = _user_rows(file, layout.preferences(run).parent, held_out, answer_format, earlier)
        if settings.limit:
            given = random.Random(settings.seed).sample(given, min(settings.limit, len(given)))
        rows += given
    if not rows:
        raise UserError(
            f"{run}: no preference pair was found; switch on preferences.own_answers or more rules"
        )
    files.write_jsonl(layout.validation_pairs(run), _validation_rows(settings, layout, run, answer_format))
    files.write_jsonl(layout.preferences(run), rows)
    _write_page(layout.pairs_page(run), str(run), rows, settings.seed, settings.data.frames)
    counts = dict(Counter(row["origin"] for row in rows))
    summary = {"run": str(run), "version": versions.RESULTS["preferences"], "pairs": counts}
    files.write_json(layout.pairs_summary(run), summary)
    return counts


def _write_page(path: Path, run: str, rows: list[PreferenceRecord], seed: int, frames: FrameRule) -> None:
    """The page of `SHOWN_PAIRS` random pairs of each origin, with their first image."""
    from workflow_scripts.datasets.pictures.images import open_image
    from workflow_scripts.pages import rendering, thumbnails

    by_origin: dict[str, list[PreferenceRecord]] = defaultdict(list)
    for row in rows:
        by_origin[row["origin"]].append(row)
    draw = random.Random(seed)
    origins = {
        origin: [
            {
                "id": row["id"],
                "source": row["source"],
                "question": unescape(row["prompt"].replace(IMAGE_PLACEHOLDER, "")),
                "chosen": unescape(row["chosen"]),
                "rejected": unescape(row["rejected"]),
                "image": thumbnails.thumbnail(open_image(path.parent / row["images"][0], frames)),
            }
            for row in draw.sample(found, min(SHOWN_PAIRS, len(found)))
        ]
        for origin, found in sorted(by_origin.items())
    }
    rendering.pairs_page(path, run, SHOWN_PAIRS, origins)


def _found_rows(
    settings: Config,
    layout: Layout,
    run: Run,
    sft_model: Path,
    held_out: HeldOut,
    answer_format: AnswerFormat,
) -> list[PreferenceRecord]:
    """The records of the pairs chosen among own answers and rules, about train images that no test row shows."""
    own, folder = settings.preferences, layout.data(run)
    records = _records(layout, run, "train", held_out)
    if not records:
        raise UserError(f"{run}: every train image is in the test set too, so no pair may be made of one")
    answers = Answers(records)
    found: list[Pair] = []
    thoughts: dict[tuple[str, str], str] = {}
    if own.own_answers:
        asked = spread(records, own.max_questions, settings.seed)
        for pair, thought in own_answers(settings, run, sft_model, asked, answers, folder):
            found.append(pair)
            thoughts[pair.record["id"], pair.rejected] = thought
    found += pairs.rule_pairs(records, answers, own.rules, settings.seed, agree)

    chosen = pairs.select(found, own.max_pairs, own.max_pairs_per_image, settings.seed)
    return [
        _row(pair, thoughts.get((pair.record["id"], pair.rejected), ""), layout, run, answer_format)
        for pair in chosen
    ]


def _validation_rows(
    settings: Config, layout: Layout, run: Run, answer_format: AnswerFormat
) -> list[PreferenceRecord]:
    """Pairs by rules about validation images that neither a train row nor a test row shows; [] where there is none."""
    own = settings.preferences
    records = _records(layout, run, "validation", HeldOut(layout, run, "train", "test"))
    found = pairs.rule_pairs(records, Answers(records), own.rules, settings.seed, agree)
    limit = max(1, int(own.max_pairs * LARGEST_SHARE))
    chosen = pairs.select(found, limit, own.max_pairs_per_image, settings.seed)
    return [_row(pair, "", layout, run, answer_format) for pair in chosen]


def _records(layout: Layout, run: Run, split: str, held_out: HeldOut) -> list[Record]:
    """The records of a split that show none of the images of `held_out`, each once."""
    return [
        record
        for record in files.read_jsonl(layout.split(run, split))
        if not held_out.among(record["images"], layout.data(run)) and not mixing.is_copy(record["id"])
    ]


def _row(pair: Pair, thought: str, layout: Layout, run: Run, answer_format: AnswerFormat) -> PreferenceRecord:
    """The record of a pair. Without a thought of its own, as by a rule, the wrong answer has that of the right one.

    The pair then differs in the answer alone.
    """
    target = pair.record["messages"][-1]["content"]
    rejected = answer_format.write(pair.rejected, thought or _thought(target, answer_format))
    row = pairs.to_record(pair, target, rejected)
    row["images"] = _relative(row["images"], layout.data(run), layout.preferences(run).parent)
    return row


def _thought(target: str, answer_format: AnswerFormat) -> str:
    """The thought of a text that conversion wrote."""
    parsed = answer_format.parse(target)
    assert parsed is not None
    return parsed[0]


def own_answers(
    settings: Config, run: Run, sft_model: Path, records: list[Record], answers: Answers, folder: Path
) -> Iterator[tuple[Pair, str]]:
    """(pair, thought) for what the SFT model samples to `records` and none of the right `answers` agrees with."""
    from workflow_scripts.evaluation.examiner import Examiner

    own = settings.preferences
    examiner = Examiner(
        settings.evaluation, settings.data.max_image_side, settings.data.frames, run.model_version, run.mode
    )
    with examiner.generator(sft_model) as model:
        sampled = model.answer(
            records, folder, temperature=own.temperature, samples=own.samples, seed=settings.seed
        )
    for record, generations in zip(records, sampled, strict=True):
        for generation in generations:
            parsed = None if generation.truncated else examiner.answer_format.parse(generation.text)
            if parsed and is_wrong(parsed[1], record, answers):
                yield Pair(record, parsed[1], OWN_ANSWER), parsed[0]


def is_wrong(answer: str, record: Record, answers: Answers) -> bool:
    """Whether no answer that the set gives to the record's question about its image agrees with `answer`."""
    return not any(agree(answer, right, record["question"]) for right in answers.here(record))


def agree(answer: str, right: str, question: str = "") -> bool:
    """Whether `answer` may be right where `right` is: it says the same, or one of them is a part of the other.

    Synonyms and parts of the body are those of our terms alone: the user's, added for the scorer, make no new pairs.
    What says yes or no has no parts: 有 is a part of 没有 and denies it. The name of a state says yes or no to a
    `question` about that state.
    """
    said, wanted = (strict.polarity(text) or states.said(text, question) for text in (answer, right))
    if said and wanted:
        return said == wanted
    if strict.polarity(answer) or strict.polarity(right):
        return strict.same_answer(answer, right)
    terms = terminology.load()
    if terms.same(answer, right) or terms.overlap(answer, right):
        return True
    words, right_words = set(tokens(answer)), set(tokens(right))
    return words <= right_words or right_words <= words


def spread(records: list[Record], limit: int, seed: int) -> list[Record]:
    """At most `limit` records, taken in turns from the images, in an order that depends on `seed` alone."""
    draw = random.Random(seed)
    by_image: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        by_image[record["source"], record["image_id"]].append(record)
    queues = [draw.sample(group, len(group)) for _, group in sorted(by_image.items())]
    draw.shuffle(queues)
    taken = [(turn, place, record) for place, queue in enumerate(queues) for turn, record in enumerate(queue)]
    return [record for _, _, record in sorted(taken, key=lambda entry: entry[:2])[:limit]]


def _relative(images: list[str], folder: Path, target: Path) -> list[str]:
    return [files.relative(folder / image, target) for image in images]


def _check(rows: list[PreferenceRecord], answer_format: AnswerFormat) -> None:
    """Refuse pairs that a stranger could not use: answers are read back from the texts and must differ."""
    problems, same = Problems(), strict.same_when_read(answer_format.read)
    for row in rows:
        if problem := structure.pair_problem(row, same):
            kind, detail = problem
            problems.add(kind, f"{row['id']}: {detail}")
    if problems:
        raise UserError("\n".join(["preference pairs:", *problems.lines()]))


def _user_rows(
    file: Path, target: Path, held_out: HeldOut, answer_format: AnswerFormat, earlier: user_pairs.Earlier
) -> list[PreferenceRecord]:
    """The user's own pairs, images relative to `target`; one that shows a test image is refused."""
    same = strict.same_when_read(answer_format.read)
    return [
        {**row, "images": _relative(row["images"], file.parent, target)}
        for row in user_pairs.read(file, answer_format.rewrite, same, held_out.digests, earlier=earlier)
    ]


def stage(settings: Config, layout: Layout, run: Run, sft_model: Path) -> dict[str, int]:
    """`preferences`, recorded by the trackers."""
    parameters = dependencies.stage_settings(settings, "preferences")
    with (
        locks.one_writer(layout.preferences(run), settings.output_in_use),
        gpus.taken(settings.evaluation.gpus),
        tracking.stage(settings, layout, run, "preferences", parameters) as record,
    ):
        counts = preferences(settings, layout, run, sft_model)
        record.metrics({"pairs": counts})
        record.artifact(layout.preferences(run))
        record.artifact(layout.pairs_page(run), "pages", pictures=True)
    logger.info("%s: pairs %s", run, ", ".join(f"{count} {origin}" for origin, count in counts.items()))
    return counts

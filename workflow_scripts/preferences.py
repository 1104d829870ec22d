"""Collect preference pairs for DPO from train questions: `results/preferences/{run}.jsonl`.

The SFT model's own wrong answers, answers made wrong by rules, and the user's own pairs. No pair shows an image
that a test question uses.
"""

import logging
import os
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

from workflow_scripts import cli, config, files, tracking
from workflow_scripts.datasets import checks, mixing
from workflow_scripts.datasets import preferences as pairs
from workflow_scripts.datasets.checks import Problems
from workflow_scripts.datasets.preferences import OWN_ANSWER, Pair
from workflow_scripts.errors import UserError
from workflow_scripts.evaluation import scoring
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat
from workflow_scripts.paths import Layout, Run

logger = logging.getLogger(__name__)


def preferences(settings: config.Config, layout: Layout, run: Run, sft_model: Path) -> dict:
    """Write the pairs of `run`; returns how many there are of each origin."""
    own = settings.preferences
    folder, output = layout.data(run), layout.preferences(run)
    tested = {_image(record, folder) for record in files.read_jsonl(layout.split(run, "test"))}
    records = [
        record
        for record in files.read_jsonl(layout.split(run, "train"))
        if _image(record, folder) not in tested and not mixing.is_copy(record["id"])
    ]
    if not records:
        raise UserError(f"{run}: every train image is in the test set too, so no pair may be made of one")
    reader = VERSIONS[run.model_version].answer_format(run.mode)
    found: list[Pair] = []
    thoughts: dict[tuple[str, str], str] = {}
    if own.own_answers:
        for pair, thought in own_answers(
            settings, run, sft_model, spread(records, own.max_questions, settings.seed), folder
        ):
            found.append(pair)
            thoughts[pair.record["id"], pair.rejected] = thought
    found += pairs.rule_pairs(records, own.rules, settings.seed, scoring.same_answer)
    chosen = pairs.select(found, own.max_pairs, own.max_pairs_per_image, settings.seed)

    rows = []
    for pair in chosen:
        target = pair.record["messages"][-1]["content"]
        # A rule's wrong answer keeps the right answer's thought: the pair then differs in the answer alone.
        thought = thoughts.get((pair.record["id"], pair.rejected)) or reader.parse(target)[0]
        row = pairs.to_record(pair, target, reader.write(pair.rejected, thought))
        rows.append({**row, "images": _relative(row["images"], folder, output.parent)})
    _check(rows, reader)
    for file in own.files.get(run.dataset, []):
        rows += _user_rows(file, output.parent, layout, run)
    if not rows:
        raise UserError(
            f"{run}: no preference pair was found; switch on preferences.own_answers or more rules"
        )
    files.write_jsonl(output, rows)
    return dict(Counter(row["origin"] for row in rows))


def own_answers(settings: config.Config, run: Run, sft_model: Path, records: list[dict], folder: Path):
    """Yield (pair, thought) for the wrong answers that the SFT model samples to `records`."""
    from workflow_scripts.evaluate import Examiner

    own = settings.preferences
    examiner = Examiner(settings, run)
    answers = examiner.generator(sft_model).answer(
        records, folder, temperature=own.temperature, samples=own.samples
    )
    for record, generations in zip(records, answers, strict=True):
        for generation in generations:
            parsed = None if generation.truncated else examiner.reader.parse(generation.text)
            if parsed and not scoring.same_answer(record["answer"], parsed[1]):
                yield Pair(record, parsed[1], OWN_ANSWER), parsed[0]


def spread(records: list[dict], limit: int, seed: int) -> list[dict]:
    """At most `limit` records, taken in turns from the images, in an order that depends on `seed` alone."""
    draw = random.Random(seed)
    by_image = defaultdict(list)
    for record in records:
        by_image[record["source"], record["image_id"]].append(record)
    queues = [draw.sample(group, len(group)) for _, group in sorted(by_image.items())]
    draw.shuffle(queues)
    taken = [(turn, place, record) for place, queue in enumerate(queues) for turn, record in enumerate(queue)]
    return [record for _, _, record in sorted(taken, key=lambda entry: entry[:2])[:limit]]


def _image(record: dict, folder: Path) -> tuple[str, ...]:
    return tuple(os.path.realpath(folder / image) for image in record["images"])


def _relative(images: list[str], folder: Path, target: Path) -> list[str]:
    return [os.path.relpath(folder / image, target) for image in images]


def _check(rows: list[dict], reader: AnswerFormat) -> None:
    """Refuse pairs that a stranger could not use: answers are read back from the texts and must differ."""

    def same(chosen: str, rejected: str) -> bool:
        return scoring.same_answer(*(reader.read(text) or "" for text in (chosen, rejected)))

    problems = Problems()
    for row in rows:
        if problem := checks.pair_problem(row, same):
            kind, detail = problem
            problems.add(kind, f"{row['id']}: {detail}")
    if problems:
        raise UserError("\n".join(["preference pairs:", *problems.lines()]))


def _user_rows(file: Path, target: Path, layout: Layout, run: Run) -> list[dict]:
    """The user's own pairs; one that shows the content of a test image is refused."""
    folder = layout.data(run)
    images = {image for record in files.read_jsonl(layout.split(run, "test")) for image in record["images"]}
    tested = {files.sha256(folder / image) for image in images}
    return [
        {**row, "images": _relative(row["images"], file.parent, target)}
        for row in pairs.user_pairs(file, scoring.same_tokens, tested)
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = cli.stage_parser(__doc__)
    cli.add_run_flags(parser)
    parser.add_argument("--sft_model", type=Path, help="sample from this model instead of results/sft/{run}")
    options = parser.parse_args(arguments)
    run, layout, settings = cli.run_of(options), Layout(options.results), config.load(options.config)
    with tracking.stage(
        settings, layout, run, "preferences", config.stage_settings(settings, "preferences")
    ) as record:
        counts = preferences(settings, layout, run, options.sft_model or layout.trained("sft", run))
        record.metrics({"pairs": counts})
        record.artifact(layout.preferences(run))
    logger.info("%s: pairs %s", run, ", ".join(f"{count} {origin}" for origin, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

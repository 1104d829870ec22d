"""Check the records of a run as a stranger reads them: `results/data/{run}/validation.json` and a page."""

import logging
import random
import sys
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from workflow_scripts import cli, config, files, pages, tracking
from workflow_scripts.datasets import checks
from workflow_scripts.datasets.checks import Picture, Problems, Row
from workflow_scripts.datasets.images import open_image
from workflow_scripts.datasets.records import SPLITS
from workflow_scripts.errors import UserError
from workflow_scripts.evaluation import scoring
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.formats import AnswerFormat
from workflow_scripts.paths import Layout, Run

logger = logging.getLogger(__name__)

LISTED = 20  # examples of each kind of problem
SAMPLES = 12
TOP_ANSWERS = 12
BINS = 20
BATCH = 1000  # texts given to the tokenizer at once


def validate(settings: config.Config, layout: Layout, run: Run) -> dict:
    """Check the records of `run`, write summary and page; errors make one UserError and another page."""
    folder = layout.data(run)
    names = ("validation.json", "validation.html", "validation-failed.html")
    verdict, page, failed_page = (folder / name for name in names)
    parameters = config.stage_settings(settings, "validate")
    with tracking.stage(settings, layout, run, "validate", parameters) as record:
        for stale in (verdict, page, failed_page):
            stale.unlink(missing_ok=True)
        summary = examine(settings, layout, run)
        written = page if summary["passed"] else failed_page
        pages.validation_page(written, summary)
        record.metrics({key: summary[key] for key in ("counts", "read", "kept", "token_lengths", "answers")})
        record.artifact(written)
        if not summary["passed"]:
            raise UserError(_refusal(folder, failed_page, summary["errors"]))
        files.write_json(verdict, {key: value for key, value in summary.items() if key != "samples"})
    return summary


def examine(settings: config.Config, layout: Layout, run: Run) -> dict:
    """Everything that `pages.validation_page` shows of the records of `run`."""
    folder, limit = layout.data(run), settings.data.max_tokens
    dialogue = _dialogue(settings, layout, run)
    errors, warnings = defaultdict(list), defaultdict(list)
    stated = files.read_json(folder / "summary.json")
    rows = [row for split in SPLITS for row in checks.read(layout.split(run, split), split, errors)]
    checks.check_summary(folder, stated, errors)
    checks.check_ids(rows, errors)
    answer_format = VERSIONS[run.model_version].answer_format(run.mode)
    well_formed = [row for row in rows if _is_well_formed(row, answer_format, errors)]
    pictures = checks.pictures(rows, folder, dialogue.image_tokens, errors)
    usable = [row for row in well_formed if all(image in pictures for image in row.record["images"])]
    checks.warn_of_duplicates(usable, pictures, warnings)
    checks.warn_of_shared_images(usable, pictures, warnings)
    lengths = _lengths(usable, dialogue, pictures)
    _check_lengths(usable, lengths, limit, errors)
    samples = _samples(usable, dialogue, folder, settings.seed, errors)
    return {
        "run": str(run),
        "passed": not errors,
        "counts": {split: _counts([row.record for row in rows if row.split == split]) for split in SPLITS},
        "read": stated["read"],
        "kept": stated["kept"],
        "dropped": stated["dropped"],
        "errors": _listed(errors),
        "warnings": _listed(warnings),
        "token_lengths": {
            "max": max(lengths, default=0),
            "mean": sum(lengths) / max(1, len(lengths)),
            "limit": limit,
            "histogram": _histogram(lengths),
        },
        "answers": _answers(rows),
        "samples": samples,
    }


def _dialogue(settings: config.Config, layout: Layout, run: Run) -> Dialogue:
    from workflow_scripts.models import loading

    settings.checkpoint(run.model_version, run.mode)
    folder = layout.model(run.model_version, run.mode)
    if not folder.is_dir():
        raise UserError(f"{folder}: no model here, whose tokenizer is needed; download it first")
    processor = loading.processor(folder, VERSIONS[run.model_version], settings.data.max_image_side)
    return Dialogue(processor, run.model_version, run.mode)


def _is_well_formed(row: Row, answer_format: AnswerFormat, errors: Problems) -> bool:
    """Whether turns, placeholders and answer are right; the first that is not becomes an error."""
    record = row.record
    problem = checks.dialogue_problem(record["messages"], record["images"], last="assistant")
    if problem is None:
        answer = answer_format.read(record["messages"][-1]["content"])
        if answer == record["answer"]:
            return True
        problem = "the answer cannot be read back", f"{record['answer']!r} is read as {answer!r}"
    kind, detail = problem
    errors[kind].append(f"{row.place}: {detail}")
    return False


def _lengths(rows: list[Row], dialogue: Dialogue, pictures: dict[str, Picture]) -> list[int]:
    """The length of each row's longest rendered turn in tokens, images included."""
    turns = [list(dialogue.turns(row.record)) for row in rows]
    texts = {text for row in turns for turn in row for text in (turn.prompt, turn.completion)}
    count = _token_counts(dialogue, sorted(texts))
    # In a text, an image is one placeholder.
    return [
        max(
            count[turn.prompt]
            + count[turn.completion]
            + sum(pictures[image].tokens - 1 for image in turn.images)
            for turn in row
        )
        for row in turns
    ]


def _token_counts(dialogue: Dialogue, texts: list[str]) -> dict[str, int]:
    """`len(dialogue.tokens(text))` of each text, many texts at a time."""
    tokenizer = dialogue.processor.tokenizer
    counts = {}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        encoded = tokenizer(batch, add_special_tokens=False)["input_ids"]
        counts |= {text: len(ids) for text, ids in zip(batch, encoded, strict=True)}
    return counts


def _check_lengths(rows: list[Row], lengths: list[int], limit: int, errors: Problems) -> None:
    kind = f"longer than data.max_tokens = {limit} (raise it, or lower data.max_image_side)"
    for row, length in zip(rows, lengths, strict=True):
        if length > limit:
            errors[kind].append(f"{row.place}: {length} tokens")


def _listed(problems: Problems) -> list[dict]:
    return [
        {"kind": kind, "count": len(places), "examples": places[:LISTED]} for kind, places in problems.items()
    ]


def _refusal(folder: Path, page: Path, errors: list[dict]) -> str:
    total = sum(problem["count"] for problem in errors)
    found = [f"{folder}: {total} error(s); mend what the lines name and convert again. As a page: {page}"]
    for problem in errors:
        found.append(f"  {problem['kind']}: {problem['count']}")
        found += [f"    {example}" for example in problem["examples"]]
    return "\n".join(found)


def _counts(records: list[dict]) -> dict:
    types = Counter(record["answer_type"] for record in records)
    return {
        "rows": len(records),
        "images": len({image for record in records for image in record["images"]}),
        "closed": types["closed"],
        "open": types["open"],
        "languages": dict(Counter(record["language"] for record in records)),
        "sources": dict(Counter(record["source"] for record in records)),
    }


def _answers(rows: list[Row]) -> dict:
    """The most frequent answers, and the share of test rows whose answer, normalised, some train row has."""
    answers = Counter(row.record["answer"] for row in rows)
    normalised = {answer: tuple(scoring.tokens(answer)) for answer in answers}
    trained = {normalised[row.record["answer"]] for row in rows if row.split == "train"}
    known = [normalised[row.record["answer"]] in trained for row in rows if row.split == "test"]
    return {
        "distinct": len(answers),
        "top": [list(pair) for pair in answers.most_common(TOP_ANSWERS)],
        "test_coverage": sum(known) / len(known) if known else None,
    }


def _histogram(values: list[int]) -> list[list[int]]:
    """[from, up to, how many] in bins of equal width."""
    if not values:
        return []
    low = min(values)
    width = (max(values) - low) // BINS + 1
    counts = Counter((value - low) // width for value in values)
    return [
        [low + index * width, low + (index + 1) * width, counts[index]] for index in range(max(counts) + 1)
    ]


def _samples(rows: list[Row], dialogue: Dialogue, folder: Path, seed: int, errors: Problems) -> list[dict]:
    """What the model sees of a few rows; an image that turns out damaged is an error."""
    samples = []
    for row in _spread(rows, seed):
        *_, turn = dialogue.turns(row.record)
        try:
            image = open_image(folder / turn.images[0])
        except UserError as error:
            errors["unreadable image"].append(f"{row.place}: {error}")
            continue
        samples.append(
            {
                "image": pages.thumbnail(_as_seen(image, dialogue.processor.image_processor)),
                "id": row.record["id"],
                "source": row.record["source"],
                "split": row.split,
                "prompt": turn.prompt,
                "target": turn.completion,
            }
        )
    return samples


def _spread(rows: list[Row], seed: int) -> list[Row]:
    """A few rows, evenly over splits and sources."""
    groups = defaultdict(list)
    for row in random.Random(seed).sample(rows, len(rows)):
        groups[SPLITS.index(row.split), row.record["source"]].append(row)
    rounds = zip_longest(*(groups[key] for key in sorted(groups)))
    picked = [row for group in rounds for row in group if row][:SAMPLES]
    return sorted(picked, key=lambda row: SPLITS.index(row.split))


def _as_seen(image: Image.Image, image_processor) -> Image.Image:
    """The image at the size to which the processor brings it."""
    _, height, width = image_processor([image], return_tensors="pt")["image_grid_thw"][0].tolist()
    side = image_processor.patch_size
    return image.resize((width * side, height * side), Image.Resampling.BICUBIC)


def main(arguments: list[str] | None = None) -> int:
    parser = cli.stage_parser(__doc__)
    cli.add_run_flags(parser)
    options = parser.parse_args(arguments)
    run, layout, settings = cli.run_of(options), Layout(options.results), config.load(options.config)
    summary = validate(settings, layout, run)
    rows = sum(counts["rows"] for counts in summary["counts"].values())
    warnings = "; ".join(f"{problem['kind']}: {problem['count']}" for problem in summary["warnings"])
    longest = summary["token_lengths"]["max"]
    logger.info("%s: %d good rows, longest %d tokens, warnings: %s", run, rows, longest, warnings or "none")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

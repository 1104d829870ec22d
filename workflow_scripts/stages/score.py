"""Score answers made anywhere by all protocols at once, beside what print has by the same protocol and split."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, Source
from workflow_scripts.datasets import readers, terminology
from workflow_scripts.evaluation import answer_files, protocols, published
from workflow_scripts.evaluation.answer_files import GivenAnswer
from workflow_scripts.evaluation.matching import AskedQuestion, Matched, match
from workflow_scripts.evaluation.predictions import ScoredRow
from workflow_scripts.evaluation.protocols import ScoringProtocol
from workflow_scripts.evaluation.protocols.judge import Judge
from workflow_scripts.evaluation.published import Published
from workflow_scripts.evaluation.score_table import GroupScores, Scores, printed, protocol_scores
from workflow_scripts.evaluation.statistics.clusters import clusters
from workflow_scripts.models.catalogue import VERSIONS

logger = logging.getLogger(__name__)

Reading = Callable[[str], str | None]


class TestSet(NamedTuple):
    """The test questions of a data set, where they were read, and the reader of each source."""

    questions: list[AskedQuestion]
    place: str
    readers: Mapping[str, str]


def score(
    settings: Config, layout: Layout, path: Path, dataset: str, model_version: str = "", mode: str = ""
) -> Scores:
    """The scores of the answers in `path` to the test questions of `dataset`.

    `model_version` and `mode` say in whose form the answers are, where the file itself neither has read them nor
    stands beside its run's summary; without them an answer is the whole of its text.
    """
    if model_version and mode:
        settings.checkpoint(model_version, mode)  # a UserError for an unknown one
    tests = _test_set(settings, layout, dataset, model_version, mode)
    layout_name, answers = answer_files.read(path)
    read = _reading(path, model_version, mode)
    asking = settings.evaluation.judge
    judge = asking.model if asking else ""
    judges = [Judge(asking, layout.judged())] if asking else []
    chosen: list[ScoringProtocol] = [*protocols.MODULES, *judges]
    terms = terminology.load(tuple(settings.terms))
    groups: dict[str, GroupScores] = {}
    tested = [answer for answer in answers if answer.split in ("", "test")]
    for group in dict.fromkeys(answer.group for answer in tested):
        found = match(tests.questions, [answer for answer in tested if answer.group == group])
        rows = [_row(question, answer, read) for question, answer in found.pairs]
        labels = clusters([question for question, _ in found.pairs])
        scores = {
            protocol.NAME: protocol_scores(
                protocol,
                rows,
                protocol.verdicts(rows, terms),
                labels,
                list(_in_print(protocol.NAME, tests, found, judge)),
            )
            for protocol in chosen
        }
        groups[group] = {
            "questions": len(tests.questions),
            "matched": found.by,
            "unmatched": found.unmatched,
            "unanswered": found.unanswered,
            "protocols": scores,
        }
    return {
        "answers": str(path),
        "layout": layout_name,
        "dataset": dataset,
        "questions": tests.place,
        "judge": judge,
        "groups": groups,
    }


def _test_set(settings: Config, layout: Layout, dataset: str, model_version: str, mode: str) -> TestSet:
    """The test records of the run, else of any run of the set, else the raw rows where conversion has not run."""
    sources = settings.sources(dataset)
    kinds = {name: source.reader for name, source in sources.items() if source.embedded is None}
    runs = [
        Run(dataset, version, each)
        for version, modes in settings.models.items()
        for each in modes
        if version == (model_version or version) and each == (mode or each)
    ]
    paths = [layout.split(run, "test") for run in runs]
    if path := next(filter(Path.is_file, paths), None):
        return TestSet(list(files.read_jsonl(path)), str(path), kinds)
    raw = [question for name, source in sources.items() for question in _raw(layout, name, source, dataset)]
    return TestSet(raw, ", ".join(str(layout.raw(name)) for name in sources), kinds)


def _raw(layout: Layout, name: str, source: Source, dataset: str) -> Iterator[AskedQuestion]:
    if not layout.raw(name).is_dir():
        raise UserError(
            f"{layout.raw(name)}: no such folder; `python -m workflow_scripts.download --dataset {dataset}` fetches the "
            "questions"
        )
    for row in readers.read(source.reader, layout.raw(name), name, source.columns):
        kept = not source.languages or row.language in source.languages
        if row.split == "test" and kept and row.question.strip() and row.answer.strip():
            yield {
                "id": row.id,
                "source": row.source,
                "image_id": row.image_id,
                "question": row.question,
                "language": row.language,
                "answer_type": row.answer_type,
                "answer": row.answer,
                "linked_id": row.linked_id,
            }


def _reading(path: Path, model_version: str, mode: str) -> Reading:
    """How an answer is read that its file has not read: in the form of a model, or as it stands."""
    beside = path.with_suffix(".json")
    lenient = False
    if not (model_version and mode) and path.suffix == ".jsonl" and beside.is_file():
        told = files.read_object(beside)
        run = str(told.get("run", "")).split("_")
        if len(run) == 3:
            (_, model_version, mode), lenient = run, told.get("model") == "untrained"
    if model_version in VERSIONS and mode:
        form = VERSIONS[model_version].answer_format(mode)
        return form.read_leniently if lenient else form.read
    return lambda text: text


def _row(question: AskedQuestion, answer: GivenAnswer, read: Reading) -> ScoredRow:
    return {
        "question": question["question"],
        "gold": question["answer"],
        "text": answer.text,
        "answer": answer.answer if answer.states_answer else read(answer.text),
        "answer_type": question["answer_type"],
        "truncated": answer.truncated,
        "source": question["source"],
        "language": question["language"],
        "image_id": question["image_id"],
    }


def _in_print(protocol: str, tests: TestSet, found: Matched, judge: str) -> Iterator[Published]:
    """What print has, for each source of which all questions are answered."""
    for source, reader in tests.readers.items():
        asked = [question for question in tests.questions if question["source"] == source]
        answered = sum(question["source"] == source for question, _ in found.pairs)
        if answered == len(asked):
            yield from published.beside(protocol, reader, asked, judge)


def command(
    settings: Config,
    layout: Layout,
    path: Path,
    dataset: str,
    model_version: str,
    mode: str,
    output: Path | None,
) -> Scores:
    """`score`, printed, and written to `output` where one is given."""
    scores = score(settings, layout, path, dataset, model_version, mode)
    print(printed(scores))
    if output:
        files.write_json(output, scores)
        logger.info("written: %s", output)
    return scores

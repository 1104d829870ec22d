"""What the records of a run contain: balance of classes, answers, and what of the answers training knows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from typing import Any, TypedDict

from workflow_scripts.datasets.records import SPLITS, Record

TOP_ANSWERS = 12
TOP_TYPES = 10
NO_TYPE, OTHER_TYPES = "not stated", "all others"


class Counts(TypedDict):
    """What a split holds: rows, images, and how the rows divide by the values of a field."""

    rows: int
    images: int
    closed: int
    open: int
    closed_answers: dict[str, int]
    languages: dict[str, int]
    sources: dict[str, int]
    question_types: dict[str, int]


class Statistics:
    """Counts that grow with the vocabulary and the images of a run, not with its rows.

    `polarity` says "yes", "no" or None of a text, `normalised` what a scorer compares of an answer. Rows must
    be entered split by split, train first.
    """

    def __init__(self, polarity: Callable[[str], str | None], normalised: Callable[[str], Hashable]) -> None:
        self._polarity, self._normalise = polarity, normalised
        self._normalised: dict[str, Hashable] = {}
        self._counters: dict[str, dict[str, Counter[str]]] = {split: defaultdict(Counter) for split in SPLITS}
        self._images: dict[str, set[str]] = {split: set() for split in SPLITS}
        self._answers: Counter[str] = Counter()
        self._trained: set[Hashable] = set()
        self._coverage: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)

    def add(self, split: str, record: Record) -> None:
        answer, counters = record["answer"], self._counters[split]
        counters["answer_type"][record["answer_type"]] += 1
        counters["languages"][record["language"]] += 1
        counters["sources"][record["source"]] += 1
        counters["question_types"][record["question_type"] or NO_TYPE] += 1
        if record["answer_type"] == "closed":
            counters["closed_answers"][self._polarity(answer) or "other"] += 1
        self._images[split].update(record["images"])
        self._answers[answer] += 1
        if answer not in self._normalised:
            self._normalised[answer] = self._normalise(answer)
        if split == "train":
            self._trained.add(self._normalised[answer])
        else:
            known = self._normalised[answer] in self._trained
            self._coverage[split, record["source"], record["language"]].update(rows=1, known=known)

    def rows(self, split: str) -> int:
        return self._counters[split]["answer_type"].total()

    def counts(self) -> dict[str, Counts]:
        """By split: rows, images, closed and open rows, and how the rows divide otherwise.

        "closed_answers" divides the closed rows into yes, no and other. "question_types" has the most frequent of
        all splits and, where there are more, OTHER_TYPES.
        """
        all_types: Counter[str] = sum(
            (self._counters[split]["question_types"] for split in SPLITS), Counter()
        )
        top = [name for name, _ in all_types.most_common(TOP_TYPES)]
        return {split: self._split_counts(split, top, len(all_types) > len(top)) for split in SPLITS}

    def _split_counts(self, split: str, top: list[str], more: bool) -> Counts:
        counters = self._counters[split]
        types = {name: counters["question_types"][name] for name in top}
        return {
            "rows": self.rows(split),
            "images": len(self._images[split]),
            "closed": counters["answer_type"]["closed"],
            "open": counters["answer_type"]["open"],
            "closed_answers": {kind: counters["closed_answers"][kind] for kind in ("yes", "no", "other")},
            "languages": dict(counters["languages"]),
            "sources": dict(counters["sources"]),
            "question_types": types | ({OTHER_TYPES: self.rows(split) - sum(types.values())} if more else {}),
        }

    def answers(self) -> dict[str, Any]:
        """The most frequent answers, and how many rows outside of train have an answer that some train row has.

        "coverage" tells this by split, set and language, "test_coverage" as a share of all test rows. Answers
        are compared normalised.
        """
        coverage: list[dict[str, Any]] = [
            {"split": split, "set": source, "language": language, **counter}
            for (split, source, language), counter in self._coverage.items()
        ]
        test = [group for group in coverage if group["split"] == "test"]
        rows = sum(group["rows"] for group in test)
        return {
            "distinct": len(self._answers),
            "top": [list(pair) for pair in self._answers.most_common(TOP_ANSWERS)],
            "test_coverage": sum(group["known"] for group in test) / rows if rows else None,
            "coverage": coverage,
        }

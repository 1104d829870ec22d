"""Which question an answer belongs to: by id, else by question and image, else by question and gold answer."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from workflow_scripts.base.errors import shown
from workflow_scripts.datasets.records import QuestionFields
from workflow_scripts.evaluation.answer_files import GivenAnswer

BY = ("id", "question and image", "question and gold", "question alone")


class AskedQuestion(QuestionFields):
    """What is known of a question of a test set; `linked_id` is what its rephrasings share, "" for none."""

    answer: str
    linked_id: str


class Matched(NamedTuple):
    """Questions with their answers, by what they were found; the answers and the questions that are left over."""

    pairs: list[tuple[AskedQuestion, GivenAnswer]]
    by: dict[str, int]
    unmatched: list[str]
    unanswered: list[str]


def match(questions: Sequence[AskedQuestion], answers: Iterable[GivenAnswer]) -> Matched:
    """The pairs in the order of the questions.

    An id is the question's own, or that without the names of set and language before it, and counts where the file's
    question, or prompt, has the words of ours. By question and gold, equal rows are taken in their order: whichever is
    which, the score is the same. A question alone is enough where only one test question has its words.
    """
    index = _Index(questions)
    found: dict[int, GivenAnswer] = {}
    by: Counter[str] = Counter()
    unmatched = []
    for answer in answers:
        candidates = {way: index.find(way, answer) for way in BY}
        way = next((way for way in BY if set(candidates[way]) - found.keys()), None)
        if way:
            number = next(number for number in candidates[way] if number not in found)
            found[number], by[way] = answer, by[way] + 1
        else:
            taken = next((places[0] for places in candidates.values() if places), None)
            why = "no such question" if taken is None else f"answered already by {found[taken].where}"
            told = answer.question.strip() or answer.id
            unmatched.append(f"{answer.where}: {shown(told)}: {why}")
    return Matched(
        [(questions[number], found[number]) for number in sorted(found)],
        {way: by[way] for way in BY if by[way]},
        unmatched,
        [question["id"] for number, question in enumerate(questions) if number not in found],
    )


class _Index:
    """The numbers of questions by what an answer may say of them."""

    def __init__(self, questions: Sequence[AskedQuestion]) -> None:
        self._words = [_words(question["question"]) for question in questions]
        self._sources = [question["source"] for question in questions]
        self._ids, self._images, self._golds, self._alone = (defaultdict[object, list[int]](list) for _ in BY)
        for number, (question, words) in enumerate(zip(questions, self._words, strict=True)):
            for name in _tails(question["id"]):
                self._ids[name].append(number)
            self._images[words, question["image_id"].casefold()].append(number)
            self._golds[words, _words(question["answer"])].append(number)
            self._alone[words].append(number)

    def find(self, way: str, answer: GivenAnswer) -> list[int]:
        """The questions that `answer` may belong to, the first first; one by id or by the question alone."""
        if way == "id":
            places = [number for number in self._ids[answer.id] if self._agrees(number, answer)]
            return places if len(places) == 1 else []
        if way == "question and image" and answer.image:
            keys = [(words, name) for words in _asked(answer) for name in _image_names(answer.image)]
            return next((self._images[key] for key in keys if self._images[key]), [])
        if way == "question and gold" and answer.gold:
            keys = [(words, _words(answer.gold)) for words in _asked(answer)]
            return next((self._golds[key] for key in keys if self._golds[key]), [])
        if way == "question alone" and not answer.gold and not answer.image:
            places = next((self._alone[words] for words in _asked(answer) if self._alone[words]), [])
            return places if len(places) == 1 else []
        return []

    def _agrees(self, number: int, answer: GivenAnswer) -> bool:
        """Whether what the file says beside the id is true of the question."""
        same_source = not answer.source or answer.source == self._sources[number]
        return same_source and self._words[number] in (_words(answer.question) or self._words[number])


def _words(text: str) -> str:
    return " ".join(text.split()).casefold()


def _asked(answer: GivenAnswer) -> Iterator[str]:
    """The question, and each line of it: a prompt has instructions after it, or the place of an image before it."""
    yield _words(answer.question)
    yield from filter(None, map(_words, answer.question.replace("<image>", "\n").splitlines()))


def _tails(name: str) -> Iterator[str]:
    """An id, and what is left of it without each of the words before its hyphens."""
    yield name
    while name := name.partition("-")[2]:
        yield name


def _image_names(path: str) -> list[str]:
    """What an image may be called by: its whole name, its file's, its folder's."""
    place = PurePosixPath(path.replace("\\", "/"))
    return [name.casefold() for name in (path, place.stem, place.parent.name) if name]

"""Wrong answers for preference pairs, made by rules, and the choice among all pairs.

To add a rule: its name in RuleName, a function, and its row in RULES.
"""

import random
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from workflow_scripts.datasets import polarity
from workflow_scripts.datasets.records import MadePreference, Record, last_turn

OWN_ANSWER = "own_answer"
RuleName = Literal["polarity", "swap", "other_image"]
TRIES = 8  # answers drawn before a question is given up

# Yes and no in one wording; a word that stands twice turns into its first partner.
_YES_NO = (
    ("yes", "no"), ("是的", "不是"), ("有", "没有"), ("包含", "不包含"), ("包括", "不包括"), ("存在", "不存在"),
    ("可以", "不可以"), ("能", "不能"), ("会", "不会"), ("对", "不对"), ("都是", "都不是"), ("是", "不是"),
    ("是", "否"), ("对的", "不对"), ("是的", "不是的"), ("會", "不會"), ("對", "不對"), ("有", "沒有"), ("可见", "未见"),
    ("可見", "未見"), ("可见", "不可见"), ("可見", "不可見"), ("正确", "不正确"), ("正確", "不正確"),
)  # fmt: skip
_COUNTERPART = {no: yes for yes, no in reversed(_YES_NO)} | dict(reversed(_YES_NO))

_SIDES = (
    ("left", "right"), ("upper", "lower"), ("superior", "inferior"), ("anterior", "posterior"), ("top", "bottom"),
    ("proximal", "distal"), ("above", "below"), ("ascending", "descending"), ("t1", "t2"), ("ap", "pa"),
    ("左", "右"), ("上", "下"), ("顶部", "底部"),
)  # fmt: skip
_OPPOSITE = {word: other for a, b in _SIDES for word, other in ((a, b), (b, a))}
_SIDE = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(word for word in _OPPOSITE if word.isascii())})(?![A-Za-z0-9])|"
    # 上 and 下 are parts of many words.
    r"[左右]|[上下](?=[肺叶方侧部角腹肢腔]|\W|$)|顶部|底部",
    re.IGNORECASE,
)

# Classes of terms; a term is the way to write it and, after "|", further ways to recognise it.
_CLASSES = {
    "en": (
        ("MRI|mr", "CT", r"X-Ray|x ?rays?|x-rays|cxr", "Ultrasound", "PET"),
        (r"Axial|transverse(?= *(?:plane|section|view|$))", "Coronal", "Sagittal"),
        (
            "Lung|lungs", "Liver", "Heart", "Brain", "Kidney|kidneys", "Spleen", "Stomach", "Bladder", "Pancreas",
            "Colon|large bowel", "Small Bowel", "Esophagus", "Rectum", "Spinal Cord",
        ),
        ("Chest|thorax", "Abdomen", "Head|skull", "Neck", "Pelvis|pelvic cavity"),
    ),
    "zh": (
        ("核磁共振|磁共振|MRI", "CT", "X光|X射线|X线|X-Ray", "超声|B超"),
        ("横断面|横切面|轴位", "冠状面", "矢状面"),
        (
            "肺|肺部", "肝脏|肝", "心脏", "大脑|脑", "肾脏|肾", "脾脏|脾", "胃", "膀胱", "胰腺", "结肠|大肠", "小肠",
            "食管", "直肠", "脊髓",
        ),
        ("胸腔|胸部", "腹部", "头部", "颈部", "盆腔|盆部"),
    ),
}  # fmt: skip
# English terms are whole words, Chinese ones whole items of a list.
_EDGES = {
    "en": (r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"),
    "zh": (r"(?:^|(?<=[\s,，、和]))", r"(?=$|[\s,，、和])"),
}


@dataclass(frozen=True)
class Pair:
    """A record whose answer is preferred to `rejected`; `origin` is own_answer or one of RULES."""

    record: Record
    rejected: str
    origin: str


def rule_pairs(
    records: list[Record],
    answers: "Answers",
    rules: Sequence[RuleName],
    seed: int,
    agree: Callable[[str, str, str], bool],
) -> Iterator[Pair]:
    """At most one pair a record and rule.

    A wrong answer that may `agree` with any of the `answers` to the same question, its third argument, about the same
    image is left out.
    """
    for record in records:
        right = answers.here(record)
        for rule in rules:
            draw = random.Random(f"{seed}-{record['id']}-{rule}")
            for answer in list(RULES[rule].wrong_answers(record, answers, draw)):
                if not any(agree(answer, known, record["question"]) for known in right):
                    yield Pair(record, answer, rule)
                    break


# The rules


def _opposite_polarity(record: Record, answers: "Answers", draw: random.Random) -> Iterator[str]:
    """A bare yes as the no of the same wording, and the reverse."""
    before, word, after = _bare(record["answer"])
    if word.casefold() in _COUNTERPART:
        yield before + _in_case_of(word, _COUNTERPART[word.casefold()]) + after


def _swapped(record: Record, answers: "Answers", draw: random.Random) -> list[str]:
    """The answer with its terms swapped or, where it has none, answers about other organs."""
    return list(_other_terms(record, draw)) or answers.of_other_organs(record, draw)


def _other_terms(record: Record, draw: random.Random) -> Iterator[str]:
    """The answer with one side changed or, where it names none, another modality, plane, organ or region."""
    answer = record["answer"]
    sides = list(_SIDE.finditer(answer))
    named = {side[0].casefold() for side in sides}
    for side in draw.sample(sides, len(sides)):
        opposite = _OPPOSITE[side[0].casefold()]
        if opposite not in named:
            yield _with(answer, side, opposite)
    if sides:
        return
    before, after = _EDGES[record["language"]]
    for terms in _CLASSES[record["language"]]:
        found = [(term, re.search(f"{before}(?:{term}){after}", answer, re.IGNORECASE)) for term in terms]
        there = [match for _, match in found if match]
        others = [term.split("|")[0] for term, match in found if not match]
        if there and others:
            yield _with(answer, draw.choice(there), draw.choice(others))
            return


def _with(answer: str, match: re.Match[str], term: str) -> str:
    return answer[: match.start()] + _in_case_of(match[0], term) + answer[match.end() :]


def _in_case_of(model: str, word: str) -> str:
    """`word` with the letter case of `model`; capitals within a word, as in "X-Ray", stay unless all is small."""
    if model.islower():
        return word.lower()
    if model.isupper() and word.islower():
        return word.upper()
    return word[0].upper() + word[1:]


def _bare(answer: str) -> tuple[str, str, str]:
    """The answer without what stands around its first and last letter, and that."""
    match = re.fullmatch(r"(\W*)(.*?)(\W*)", answer, re.DOTALL)
    assert match is not None  # anything matches
    return match[1], match[2], match[3]


def _of_another_image(record: Record, answers: "Answers", draw: random.Random) -> list[str]:
    """Answers to the same question about other images."""
    return answers.elsewhere(record, draw)


class Rule(NamedTuple):
    """`wrong_answers` to a record are tried in their order; `meaning` is what config.yaml says of the rule."""

    meaning: str
    wrong_answers: Callable[[Record, "Answers", random.Random], Iterable[str]]


RULES: dict[RuleName, Rule] = {
    "polarity": Rule("yes/no flipped", _opposite_polarity),
    "swap": Rule("side, organ or modality swapped", _swapped),
    "other_image": Rule("the same question's answer on another image", _of_another_image),
}


class Answers:
    """What the records answer: to a question about an image, to a question anywhere, to a type of question."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._here: dict[tuple[str, ...], list[str]] = defaultdict(list)
        # Dictionaries as ordered sets.
        everywhere: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
        organs: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
        for record in records:
            self._here[self._place(record)].append(record["answer"])
            everywhere[self._question(record)][record["answer"]] = None
            if not _gold_polarity(record):
                organs[self._type(record)][record["answer"]] = None
        self._everywhere = {key: list(found) for key, found in everywhere.items()}
        self._organs = {key: list(found) for key, found in organs.items() if "ORGAN" in key[-1].upper()}

    def here(self, record: Record) -> list[str]:
        """Every answer to the record's question about its image; a set may give several."""
        return self._here[self._place(record)]

    def elsewhere(self, record: Record, draw: random.Random) -> list[str]:
        """Answers to the record's question, about any image."""
        return _few(self._everywhere[self._question(record)], draw)

    def of_other_organs(self, record: Record, draw: random.Random) -> list[str]:
        """Answers to other questions about organs, neither part of the right one nor the reverse."""
        if _gold_polarity(record):
            return []
        right = record["answer"].casefold()
        found = [
            (answer, answer.casefold()) for answer in _few(self._organs.get(self._type(record), []), draw)
        ]
        return [answer for answer, folded in found if folded not in right and right not in folded]

    def _place(self, record: Record) -> tuple[str, ...]:
        return (record["source"], record["image_id"], *self._question(record))

    def _question(self, record: Record) -> tuple[str, ...]:
        return record["language"], " ".join(re.findall(r"\w+", record["question"].casefold()))

    def _type(self, record: Record) -> tuple[str, ...]:
        return record["source"], record["language"], record["question_type"]


def _few(answers: list[str], draw: random.Random) -> list[str]:
    return draw.sample(answers, min(TRIES, len(answers)))


# The choice


def select(pairs: Iterable[Pair], max_pairs: int, max_per_image: int, seed: int) -> list[Pair]:
    """At most `max_pairs`, own answers before rules, none twice, at most `max_per_image` of an image.

    Where the right answer is a bare yes or no, there are as many of either: a pair waits for its opposite.
    """
    pairs = list(pairs)
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    taken: list[Pair] = []
    seen: set[tuple[str, str]] = set()
    of_image: Counter[tuple[str, str]] = Counter()
    waiting: dict[str, deque[Pair]] = {"yes": deque(), "no": deque()}

    def fits(*group: Pair) -> bool:
        wanted = Counter(map(_image, group))
        room = all(of_image[image] + count <= max_per_image for image, count in wanted.items())
        return room and len(taken) + len(group) <= max_pairs

    for pair in sorted(shuffled, key=lambda pair: pair.origin != OWN_ANSWER):
        key = pair.record["id"], pair.rejected
        if key in seen or not fits(pair):
            continue
        seen.add(key)
        group = [pair]
        if said := _gold_polarity(pair.record):
            opposite = waiting["no" if said == "yes" else "yes"]
            while opposite and not fits(opposite[0]):
                opposite.popleft()
            if not opposite:
                waiting[said].append(pair)
                continue
            group = [opposite.popleft(), pair]
        if fits(*group):
            taken += group
            of_image.update(map(_image, group))
    return taken


def _image(pair: Pair) -> tuple[str, str]:
    return pair.record["source"], pair.record["image_id"]


def _gold_polarity(record: Record) -> str | None:
    return polarity.bare(record["answer"])


def to_record(pair: Pair, chosen: str, rejected: str) -> MadePreference:
    """The preference record on disk; `chosen` and `rejected` are the assistant's whole texts."""
    record = pair.record
    return {
        "messages": record["messages"][:-1],
        "images": record["images"],
        "chosen": chosen,
        "rejected": rejected,
        **last_turn(record["messages"][:-1]),
        "id": record["id"],
        "source": record["source"],
        "image_id": record["image_id"],
        "question": record["question"],
        "answer": record["answer"],
        "language": record["language"],
        "answer_type": record["answer_type"],
        "rejected_answer": pair.rejected,
        "origin": pair.origin,
    }

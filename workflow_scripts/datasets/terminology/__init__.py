"""Terms of medicine in English and Chinese: which names mean the same, and what to call it.

The YAML files beside this module hold the concepts by category; a user's files are read after them. Only what is
known word for word has a meaning here: a negated term, or a term with a word more, has none and is left alone.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.files import read_yaml
from workflow_scripts.datasets.checks.structure import describe
from workflow_scripts.datasets.tokens import tokens

BUILT_IN = tuple(sorted(Path(__file__).parent.glob("*.yaml")))
PLACED = ("organs", "diseases")  # what a position may stand before: "left kidney", "bilateral pneumonia"

_COMMA = re.compile(r"[,，;；、]")
_AND = re.compile(r"\band\b|&|以及|[和及与]", re.IGNORECASE)
_AND_SO_ON = re.compile(r"(?:\betc\b\.?|\b(?:and )?other diseases|等(?:疾病)?(?:导致)?)\s*$", re.IGNORECASE)
_BETWEEN = {"en": ", ", "zh": "，"}

Name = Annotated[str, StringConstraints(strict=True, min_length=1)]
Category = Literal[
    "positions", "relations", "organs", "systems", "modalities", "sequences", "planes", "colours", "shapes",
    "densities", "amounts", "states", "diseases", "symptoms", "causes", "treatments", "prevention", "functions",
]  # fmt: skip
Meaning = tuple[str, ...]  # a concept by its key, or a position and the concept after it


class Names(BaseModel):
    """What a concept is called; its key is the canonical English name, its first Chinese name the canonical one.

    `part_of` has the keys of the concepts that it is a part of.
    """

    model_config = ConfigDict(extra="forbid")

    en: list[Name] = []
    zh: list[Name] = []
    part_of: list[Name] = []


_CONCEPTS = TypeAdapter(dict[Category, dict[Name, Names]])
_ABBREVIATIONS = TypeAdapter(dict[Name, Name])


class Terminology:
    """Names and what they mean. Build it by `load`."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._category: dict[str, str] = {}
        self._names: dict[str, Names] = {}
        self._meanings: dict[tuple[str, ...], Meaning] = {}
        files = [(path, *_read(path)) for path in paths]
        for path, concepts, _ in files:
            for category, entries in concepts.items():
                for key, names in entries.items():
                    self._add_concept(category, key, names, f"{path}: {category}.{key}")
        for path, concepts, _ in files:
            for category, entries in concepts.items():
                for key, names in entries.items():
                    for whole in names.part_of:
                        if whole not in self._category:
                            where = f"{path}: {category}.{key}.part_of"
                            raise UserError(f"{where}: {whole!r} is no concept; add it first")
        for path, _, abbreviations in files:
            for short, name in abbreviations.items():
                where = f"{path}: abbreviations.{short}"
                meaning = self._meaning(name)
                if meaning is None:
                    raise UserError(f"{where}: {name!r} is no name of any concept; add the concept first")
                self._add(short, meaning, where)

    def _add_concept(self, category: str, key: str, names: Names, where: str) -> None:
        known = self._category.setdefault(key, category)
        if known != category:
            raise UserError(f"{where}: {key!r} stands among the {known} already; extend it there")
        older = self._names.get(key, Names())
        self._names[key] = Names(
            en=names.en + older.en, zh=names.zh + older.zh, part_of=names.part_of + older.part_of
        )
        for name in (key, *names.en, *names.zh):
            self._add(name, (key,), where)

    def _add(self, name: str, meaning: Meaning, where: str) -> None:
        words = tuple(tokens(name))
        if not words:
            raise UserError(f"{where}: {name!r} has no letter and no digit")
        known = self._meanings.setdefault(words, meaning)
        if known != meaning:
            raise UserError(
                f"{where}: {name!r} is a name of {' '.join(known)!r} already; a name has one meaning, "
                "so remove it here or extend that concept"
            )

    @property
    def concepts(self) -> dict[str, Names]:
        """Every concept by its key."""
        return self._names

    def meanings(self, answer: str) -> list[Meaning] | None:
        """What each part of an answer means, in order; None where any part is unknown, or there is none.

        Parts stand between commas, semicolons and their Chinese kin or, where such a part has no meaning as a whole,
        between "and"s. A final "etc." counts for nothing.
        """
        parts = list(self._parts(answer))
        known = [part for part in parts if part is not None]
        return known if known and len(known) == len(parts) else None

    def _parts(self, answer: str) -> Iterator[Meaning | None]:
        for part in _COMMA.split(answer):
            # In this order: an "and" or a final 等 may be part of a name.
            closed = _AND_SO_ON.sub("", part)
            if meaning := self._meaning(part) or self._meaning(closed):
                yield meaning
            elif tokens(closed):
                yield from map(self._meaning, _AND.split(closed))

    def _meaning(self, name: str) -> Meaning | None:
        words = tuple(tokens(name))
        singular = (*words[:-1], words[-1].removesuffix("s")) if words else ()
        return self._look_up(words) or self._look_up(singular)

    def _look_up(self, words: tuple[str, ...]) -> Meaning | None:
        """A name as it stands, else a position and a name of what has one; of two such readings the longer position."""
        if words in self._meanings:
            return self._meanings[words]
        for cut in range(len(words) - 1, 0, -1):
            position, placed = self._meanings.get(words[:cut], ()), self._meanings.get(words[cut:], ())
            if self._is_of(position, "positions") and self._is_of(placed, *PLACED):
                return position + placed
        return None

    def _is_of(self, meaning: Meaning, *categories: str) -> bool:
        return len(meaning) == 1 and self._category[meaning[0]] in categories

    def same(self, a: str, b: str) -> bool:
        """Whether all parts of both answers are known and name the same concepts, in any order."""
        meant = self.meanings(a)
        return meant is not None and set(meant) == set(self.meanings(b) or ())

    def overlap(self, a: str, b: str) -> bool:
        """Whether all that one of the answers names is, or lies within, what the other names: "Brain" and "Head"."""
        meant, other = self.meanings(a), self.meanings(b)
        if meant is None or other is None:
            return False
        return any(
            all(any(self._is_within(part, whole) for whole in wholes) for part in parts)
            for parts, wholes in ((meant, other), (other, meant))
        )

    def _is_within(self, part: Meaning, whole: Meaning) -> bool:
        """Whether `part` is `whole` or a part of it; positions before both must be within one another too."""
        *positions, key = part
        *whole_positions, whole_key = whole
        fits = not positions or not whole_positions or self._reaches(positions[0], whole_positions[0])
        return fits and self._reaches(key, whole_key)

    def _reaches(self, key: str, whole: str) -> bool:
        return key == whole or any(self._reaches(larger, whole) for larger in self._names[key].part_of)

    def canonical(self, answer: str, language: str) -> str | None:
        """The answer in canonical names of "en" or "zh", whichever it is in itself; None where it has none."""
        names = [self._name(meaning, language) for meaning in self.meanings(answer) or ()]
        known = [name for name in names if name is not None]
        return _BETWEEN[language].join(known) if known and len(known) == len(names) else None

    def _name(self, meaning: Meaning, language: str) -> str | None:
        if language == "en":
            return " ".join(meaning)
        chinese = [self._names[key].zh for key in meaning]
        if not all(chinese):
            return None
        return chinese[0][0] if len(chinese) == 1 else "".join(min(names, key=len) for names in chinese)


@cache
def load(paths: tuple[Path, ...] = ()) -> Terminology:
    """The terminology, with a user's files after ours; what is wrong in a file is a UserError that names it.

    A user's concept of a known key adds to that concept, and its first Chinese name becomes the canonical one.
    """
    return Terminology((*BUILT_IN, *paths))


def _read(path: Path) -> tuple[dict[Category, dict[str, Names]], dict[str, str]]:
    """(concepts by category, abbreviations) of one file."""
    raw = read_yaml(path, shipped=path in BUILT_IN)
    try:
        abbreviations = _ABBREVIATIONS.validate_python(raw.pop("abbreviations", {}))
        return _CONCEPTS.validate_python(raw), abbreviations
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error)}") from None

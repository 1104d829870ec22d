"""Which prompts go on from a common beginning."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class Prompt:
    """The tokens of one question, each image one placeholder, with its image paths; `index` is that of its record."""

    index: int
    key: str  # names the question in its random numbers: the record's id
    ids: list[int]
    images: tuple[str, ...]


@dataclass(frozen=True)
class PromptGroup:
    """Prompts that show the same images and begin with the same `prefix`, in which all of these lie.

    Where there are several, something of each follows the prefix: its last token's logits are where an answer begins.
    """

    prefix: list[int]
    images: list[str]
    prompts: list[Prompt]

    @property
    def alone(self) -> bool:
        """Whether the prefix is a whole prompt."""
        return len(self.prompts) == 1


def groups(prompts: Iterable[Prompt], image_token: int) -> list[PromptGroup]:
    """`prompts` by their images, in the order in which these first occur.

    Prompts with the same images after different words are kept apart, so that every image lies in a prefix.
    """
    alike: dict[tuple[tuple[str, ...], tuple[int, ...]], list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        alike[prompt.images, tuple(_up_to_last(prompt.ids, image_token))].append(prompt)
    return [
        PromptGroup(_common([prompt.ids for prompt in found]), list(images), found)
        for (images, _), found in alike.items()
    ]


def _up_to_last(ids: list[int], token: int) -> list[int]:
    last = max((place for place, found in enumerate(ids) if found == token), default=-1)
    return ids[: last + 1]


def _common(sequences: list[list[int]]) -> list[int]:
    if len(sequences) == 1:
        return sequences[0]
    alike = takewhile(
        lambda tokens: len(set(tokens)) == 1, zip(*sequences, strict=False)
    )  # as long as the shortest
    shortest = min(map(len, sequences))
    return [token for token, *_ in alike][: shortest - 1]

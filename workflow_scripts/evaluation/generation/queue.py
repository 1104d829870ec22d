"""Questions that wait to be answered, and the passes in which their prompts run."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workflow_scripts.evaluation.generation.branches import Branch, branched
from workflow_scripts.evaluation.generation.cache import Batch, prefill
from workflow_scripts.evaluation.generation.prompts import Prompt, PromptGroup
from workflow_scripts.models.interfaces import Processor
from workflow_scripts.models.pixels import Pixels, batch

if TYPE_CHECKING:
    from workflow_scripts.models.loading import Model

# Prompt tokens of one pass, unless a single image or question has more. They fill a GPU.
PASS_TOKENS = 4096


@dataclass(frozen=True)
class Room:
    """What may be added to a running batch: at most `budget` tokens of all rows, each as long as the longest may get.

    `rows` and `prompt` are the number of the rows that run and the longest of their prompts; each row may write
    `answer` tokens, each question has `samples` rows.
    """

    budget: int
    rows: int
    prompt: int
    answer: int
    samples: int

    @property
    def free(self) -> float:
        """The share of the budget that no row may come to need."""
        return 1 - self.rows * (self.prompt + self.answer) / self.budget

    def holds(self, questions: int, prompt: int) -> bool:
        """Whether that many questions fit in, the longest of `prompt` tokens; one always fits into an empty batch."""
        rows = self.rows + questions * self.samples
        fits = rows * (max(self.prompt, prompt) + self.answer) <= self.budget
        return fits or (self.rows == 0 and questions == 1)


@dataclass(frozen=True)
class Started:
    """Questions whose prompts have run, and `samples` rows of each."""

    prompts: list[Prompt]
    batch: Batch


class Queue:
    """Groups of prompts; the prefix of each runs once, and is kept until all its questions have been taken."""

    def __init__(
        self, groups: Iterable[PromptGroup], model: "Model", processor: Processor, pixels: Pixels
    ) -> None:
        self._groups = deque(groups)
        self._model, self._processor, self._pixels = model, processor, pixels
        self._prefixes: Batch | None = None
        self._ready: deque[tuple[Branch, Prompt]] = deque()  # in the order of the prefixes

    def __bool__(self) -> bool:
        return bool(self._ready or self._groups)

    def take(self, room: Room) -> Started | None:
        """Run the prompts of as many questions as there is room for; None if there is for none."""
        if not self._ready:
            self._run_prefixes()
        assert self._prefixes is not None
        count = self._fitting(room, self._prefixes.columns)
        if count == 0:
            return None
        taken = [self._ready.popleft() for _ in range(count)]
        rows = branched(self._prefixes, [branch for branch, _ in taken], self._model, room.samples)
        if not self._ready:
            self._prefixes = None
        return Started([prompt for _, prompt in taken], rows)

    def _fitting(self, room: Room, columns: int) -> int:
        """How many of the questions that are ready fit into the room, and into one pass after their prefixes."""
        longest = 0  # of all branches
        lines: dict[int, int] = {}  # tokens after each prefix
        for count, (branch, _) in enumerate(self._ready):
            longest = max(longest, len(branch.tokens))
            lines[branch.prefix] = lines.get(branch.prefix, 0) + len(branch.tokens)
            crowded = count > 0 and len(lines) * max(lines.values()) > PASS_TOKENS
            if crowded or not room.holds(count + 1, columns + longest):
                return count
        return len(self._ready)

    def _run_prefixes(self) -> None:
        """Run the images and prefixes of the next groups together."""
        taken: list[PromptGroup] = []
        longest = 0
        while self._groups:
            group = self._groups[0]
            images = sum(self._pixels.tokens(self._pixels(path)[1]) for path in group.images)
            longest = max(longest, len(group.prefix) - len(group.images) + images)
            if taken and ((len(taken) + 1) * longest > PASS_TOKENS or group.alone != taken[0].alone):
                break
            taken.append(self._groups.popleft())
        rows = [(group.prefix, group.images) for group in taken]
        self._prefixes = prefill(self._model, batch(rows, self._processor, self._pixels))
        self._ready.extend(
            (Branch(row, prompt.ids[len(group.prefix) :]), prompt)
            for row, group in enumerate(taken)
            for prompt in group.prompts
        )

"""When an answer ends: by itself, at its length, in an endless repetition; and a thought, at its budget."""

from collections.abc import Sequence
from dataclasses import dataclass, field

# A row that has written the same cycle of at most LONGEST_CYCLE tokens throughout its last REPETITION_WINDOW tokens,
# which are three cycles or more, will not leave it. Looked for every REPETITION_STEP tokens.
REPETITION_WINDOW = 96
LONGEST_CYCLE = 32
REPETITION_STEP = 16


@dataclass(frozen=True)
class Thought:
    """A thought's tokens: the one that opens it, the one that ends it, and those that close it at its `budget`."""

    begin: int | None
    end: int | None
    closing: Sequence[int]
    budget: int | None

    def is_open(self, ids: Sequence[int]) -> bool:
        """Whether `ids` end within a thought."""
        last = next((token for token in reversed(ids) if token in (self.begin, self.end)), None)
        return last is not None and last == self.begin


@dataclass(frozen=True)
class AnswerLimits:
    """What ends the answers of a model: its stop tokens, the most tokens, and how its thoughts end."""

    stops: frozenset[int]
    tokens: int
    thought: Thought


@dataclass
class GrowingAnswer:
    """One answer as it is written; `thinking` tells whether the prompt ended within a thought."""

    limits: AnswerLimits
    thinking: bool
    written: list[int] = field(default_factory=list)
    thought_tokens: int = 0
    forced: bool = False
    repeated: bool = False
    closing: list[int] = field(default_factory=list)  # still to be written, whatever the model would

    @property
    def stopped(self) -> bool:
        """Whether it ended by itself."""
        return bool(self.written) and self.written[-1] in self.limits.stops

    @property
    def ended(self) -> bool:
        """Whether nothing more is written."""
        return self.stopped or self.repeated or len(self.written) >= self.limits.tokens

    def take(self, token: int) -> int:
        """Write `token`, which the model chose, or what must stand in its place; returns what was written."""
        thought = self.limits.thought
        if self.thinking and self.thought_tokens == thought.budget and token != thought.end:
            self.forced, self.closing = True, list(thought.closing)
        if self.closing:
            token = self.closing.pop(0)
        self.written.append(token)
        if token in (thought.begin, thought.end):
            self.thinking = token == thought.begin
        elif self.thinking:
            self.thought_tokens += 1
        # A thought that has a budget ends there, and an answer may follow it.
        self.repeated = not (self.thinking and thought.budget is not None) and is_endless(self.written)
        return token


def is_endless(written: Sequence[int]) -> bool:
    """Whether the last tokens are one cycle again and again."""
    if len(written) < REPETITION_WINDOW or len(written) % REPETITION_STEP:
        return False
    tail = written[-REPETITION_WINDOW:]
    return any(tail[cycle:] == tail[:-cycle] for cycle in range(1, LONGEST_CYCLE + 1))

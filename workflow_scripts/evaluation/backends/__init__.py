"""What asks a model: its own process with transformers, vLLM's engine, or a server. One interface for all."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation.generation import Generation

Name = Literal["transformers", "vllm", "openai"]
NAMES: tuple[Name, ...] = get_args(Name)


class Backend(Protocol):
    """A model that can be asked.

    `checkpoint_settings` are those of its generation_config.json that would change answers, and of which none does.
    """

    @property
    def checkpoint_settings(self) -> dict[str, Any]: ...

    def stream(
        self,
        records: Sequence[Record],
        folder: Path,
        blank: bool = False,
        temperature: float | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Iterator[tuple[int, list[Generation]]]:
        """The index of each record, as soon as it is answered, and `samples` answers to its last question.

        Image paths are relative to `folder`; with `blank`, images are replaced by grey ones. Greedy without a
        `temperature`; with one, samples depend on `seed`.
        """
        ...

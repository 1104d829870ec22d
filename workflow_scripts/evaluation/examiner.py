"""Models of one version and mode, asked the same questions in the same way, one in memory at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workflow_scripts.base import versions
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat

if TYPE_CHECKING:
    from workflow_scripts.evaluation.generation.generator import Generator
    from workflow_scripts.models.interfaces import Processor


class Asking(Protocol):
    """How a model is asked: on how many GPUs, how many tokens at once, and for how many at most."""

    @property
    def gpus(self) -> int: ...
    @property
    def tokens_per_batch(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def thought_budget(self) -> int | None: ...


@dataclass(frozen=True)
class Examiner:
    """Loads models to be asked, and says what their answers depend on."""

    asking: Asking
    max_image_side: int
    frames: FrameRule
    model_version: str
    mode: str

    @property
    def answer_format(self) -> AnswerFormat:
        """How the models of this version and mode write their answers."""
        return VERSIONS[self.model_version].answer_format(self.mode)

    def processor(self, path: Path) -> "Processor":
        """That of the model at `path`, with this examiner's pictures."""
        from workflow_scripts.models import processors

        return processors.load(path, VERSIONS[self.model_version], self.max_image_side, self.frames)

    def way(self, path: Path) -> dict[str, Any]:
        """Everything that the answers of the model at `path` depend on besides prompts and images; plain values.

        How many GPUs and tokens at once is not among it, though in bf16 other neighbours may tip an answer.
        """
        from workflow_scripts.models import loading

        _, dtype = loading.device_and_dtype(self.asking.gpus)
        return {
            "version": versions.RESULTS["ask"],
            "model": loading.digest(path),
            "dtype": str(dtype).removeprefix("torch."),
            "max_image_side": self.max_image_side,
            "frames": self.frames,
            "max_new_tokens": self.asking.max_new_tokens,
            "thought_budget": self.asking.thought_budget,
        }

    @contextmanager
    def model(
        self, path: Path, processor: "Processor | None" = None, spread: bool | None = None
    ) -> Iterator["Generator"]:
        """The model or adapter at `path`, ready to be asked; its memory is free again afterwards.

        By its `processor`, where that is loaded already. `spread` over all GPUs that are visible, by default where it
        may use several.
        """
        from workflow_scripts.evaluation.generation.generator import Generator
        from workflow_scripts.models import loading
        from workflow_scripts.models.dialogue import Dialogue

        device, dtype = loading.device_and_dtype(self.asking.gpus)
        spread = self.asking.gpus > 1 if spread is None else spread
        processor = processor or self.processor(path)
        generator = Generator(
            loading.model(path, dtype, device, device_map="auto" if spread else None),
            processor,
            Dialogue(processor, self.model_version, self.mode),
            self.asking.tokens_per_batch,
            self.asking.max_new_tokens,
            self.asking.thought_budget,
        )
        try:
            yield generator
        finally:
            del generator.model
            loading.free_memory()

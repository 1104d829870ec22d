"""Models of one version and mode, asked the same questions in the same way, one in memory at a time."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workflow_scripts.base import versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.evaluation import backends
from workflow_scripts.evaluation.backends import Backend
from workflow_scripts.evaluation.backends.openai_client import Server
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import AnswerFormat
from workflow_scripts.models.prompt_styles import OURS, PromptStyle

if TYPE_CHECKING:
    from workflow_scripts.evaluation.backends.served import ServedModel
    from workflow_scripts.evaluation.generation.generator import Generator
    from workflow_scripts.models.dialogue import Dialogue
    from workflow_scripts.models.interfaces import Processor

SERVED_NAME = "{model}"  # in the name of a server's model: stands for the name that the model has here


class AskingSettings(Protocol):
    """How a model is asked: by what, on how many GPUs, how many tokens at once, for how many tokens at most.

    `engine` are further arguments of vLLM's engine.
    """

    @property
    def backend(self) -> backends.Name: ...
    @property
    def server(self) -> Server | None: ...
    @property
    def engine(self) -> Mapping[str, Any]: ...
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
    """Loads models to be asked, and says what their answers depend on.

    `style` is that of a model that was trained elsewhere; `name` is what a server may know a model by.
    """

    asking: AskingSettings
    max_image_side: int
    frames: FrameRule
    model_version: str
    mode: str
    name: str = ""
    style: PromptStyle = OURS

    @property
    def answer_format(self) -> AnswerFormat:
        """How the models of this version and mode write their answers."""
        return VERSIONS[self.model_version].answer_format(self.mode)

    def processor(self, path: Path) -> "Processor":
        """That of the model at `path`, with this examiner's pictures."""
        from workflow_scripts.models import processors

        return processors.load(path, VERSIONS[self.model_version], self.max_image_side, self.frames)

    def dialogue(self, processor: "Processor") -> "Dialogue":
        """How questions are put by this processor."""
        from workflow_scripts.models.dialogue import Dialogue

        return Dialogue(processor, self.model_version, self.mode, self.style)

    def way(self, path: Path, processor: "Processor") -> dict[str, Any]:
        """Everything that the answers of the model at `path` depend on besides prompts and images; plain values.

        How many GPUs and tokens at once is not among it, though in bf16 other neighbours may tip an answer. Nor is
        the address of a server, which is one of many that may have the model.
        """
        from workflow_scripts.models import loading

        return {
            "version": versions.RESULTS["ask"],
            "model": loading.digest(path),
            "max_image_side": self.max_image_side,
            "frames": self.frames,
            "max_new_tokens": self.asking.max_new_tokens,
            "thought_budget": self.asking.thought_budget,
            "backend": self.asking.backend,
            **self._way_of_backend(processor),
        }

    def _way_of_backend(self, processor: "Processor") -> dict[str, Any]:
        if self.asking.backend == "openai":
            server = self._server()
            with closing(self._served(processor)) as model:
                stated = model.stated()
            return {
                "served": self._served_name(server),
                "stated": stated,
                "parameters": dict(server.parameters),
            }
        if self.asking.backend == "vllm":
            from workflow_scripts.evaluation.backends import vllm_engine

            return {"vllm": vllm_engine.package().__version__, "engine": dict(self.asking.engine)}
        from workflow_scripts.models import loading

        _, dtype = loading.device_and_dtype(self.asking.gpus)
        return {"dtype": str(dtype).removeprefix("torch.")}

    @property
    def shares(self) -> bool:
        """Whether each of several GPUs may ask a part of the questions."""
        return self.asking.backend == "transformers" and self.asking.gpus > 1

    @contextmanager
    def model(
        self, path: Path, processor: "Processor | None" = None, spread: bool | None = None
    ) -> Iterator[Backend]:
        """The model or adapter at `path`, ready to be asked by the backend; its memory is free again afterwards.

        By its `processor`, where that is loaded already. `spread`: see `generator`.
        """
        processor = processor or self.processor(path)
        if self.asking.backend == "openai":
            with closing(self._served(processor)) as served:
                yield served
        elif self.asking.backend == "vllm":
            from workflow_scripts.evaluation.backends.vllm_engine import VllmModel

            asking = self.asking
            with closing(
                VllmModel(path, self.dialogue(processor), asking.gpus, asking.max_new_tokens, asking.engine)
            ) as engine:
                yield engine
        else:
            with self.generator(path, processor, spread) as generator:
                yield generator

    @contextmanager
    def generator(
        self, path: Path, processor: "Processor | None" = None, spread: bool | None = None
    ) -> Iterator["Generator"]:
        """The model or adapter at `path` in this process, with transformers, whatever the backend.

        `spread` over all GPUs that are visible, by default where it may use several.
        """
        from workflow_scripts.evaluation.generation.generator import Generator
        from workflow_scripts.models import loading

        device, dtype = loading.device_and_dtype(self.asking.gpus)
        spread = self.asking.gpus > 1 if spread is None else spread
        processor = processor or self.processor(path)
        generator = Generator(
            loading.model(path, dtype, device, device_map="auto" if spread else None),
            processor,
            self.dialogue(processor),
            self.asking.tokens_per_batch,
            self.asking.max_new_tokens,
            self.asking.thought_budget,
        )
        try:
            yield generator
        finally:
            del generator.model
            loading.free_memory()

    def _served(self, processor: "Processor") -> "ServedModel":
        from workflow_scripts.evaluation.backends.served import ServedModel

        server = self._server()
        return ServedModel(
            server, self._served_name(server), self.dialogue(processor), self.asking.max_new_tokens
        )

    def _served_name(self, server: Server) -> str:
        return server.model.replace(SERVED_NAME, self.name)

    def _server(self) -> Server:
        if self.asking.server is None:
            raise UserError("evaluation.backend openai needs evaluation.server: {url: …, model: …}")
        return self.asking.server

"""vLLM's engine in this process, without a server. After vLLM's documentation of `LLM`, `SamplingParams` and `LoRAConfig`."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from workflow_scripts.base.errors import UserError, brief
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation.generation import Generation
from workflow_scripts.evaluation.questions import question_of
from workflow_scripts.models import adapters, bases, generation_settings, loading, serving
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue, image_paths
from workflow_scripts.models.formats import CLOSING_TAGS
from workflow_scripts.models.pixels import Pixels, picture

CHUNK = 512  # questions that the engine is given at once: so many are asked again after a kill, at most


def package() -> Any:
    """The module vllm, which then sends no usage statistics; a UserError where it is not installed."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"evaluation.backend vllm: {brief(error)}; pip install vllm (Linux, NVIDIA GPU) where it takes this "
            "transformers, else serve the model from an environment of its own and take openai"
        ) from error
    return vllm


class VllmModel:
    """The model or adapter at `path` in an engine on `gpus` GPUs; `engine` holds further arguments of vllm.LLM.

    It is given our own tokens and pixels: each prompt as `dialogue` renders it, each image as its processor resizes it.
    """

    def __init__(
        self, path: Path, dialogue: Dialogue, gpus: int, max_new_tokens: int, engine: Mapping[str, Any]
    ) -> None:
        self._vllm = package()
        self._path, self._base = path, loading.base_of(path)
        self._dialogue, self._gpus, self._max_new_tokens = dialogue, gpus, max_new_tokens
        self._engine_arguments = dict(engine)
        if bases.is_adapter(path):
            _refuse_what_vllm_ignores(path)
            self._engine_arguments |= {"enable_lora": True, "max_lora_rank": serving.max_lora_rank(path)}
        config = _generation_config(self._base)
        self.checkpoint_settings = generation_settings.that_change_answers(config)
        words = dialogue.processor.tokenizer
        self._stops = generation_settings.stops(config, words, VERSIONS[dialogue.model_version])
        self._kept_stops = {token for token in self._stops if words.decode([token]) in CLOSING_TAGS}
        self._llm: Any = None

    def close(self) -> None:
        self._llm = None
        loading.free_memory()

    def stream(
        self,
        records: Sequence[Record],
        folder: Path,
        blank: bool = False,
        temperature: float | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Iterator[tuple[int, list[Generation]]]:
        """As of a Backend; those of CHUNK questions come together."""
        if not records:
            return
        self._start(max(len(record["images"]) for record in records))
        pixels = Pixels(self._dialogue.processor.image_processor, blank)
        # Questions about an image one after the other: the engine runs their common prefix once.
        order = sorted(range(len(records)), key=lambda index: records[index]["images"])
        lora = {"lora_request": self._lora()} if bases.is_adapter(self._path) else {}
        for start in range(0, len(order), CHUNK):
            chunk = order[start : start + CHUNK]
            outputs = self._llm.generate(
                [self._prompt(records[index], folder, pixels) for index in chunk],
                [self._sampling(records[index], temperature, samples, seed) for index in chunk],
                use_tqdm=False,
                **lora,
            )
            for index, output in zip(chunk, outputs, strict=True):
                found = [self._read(written) for written in output.outputs]
                yield index, found if temperature else found * samples

    def _start(self, images: int) -> None:
        if self._llm is None:
            self._llm = self._vllm.LLM(
                model=str(self._base),
                **{
                    "dtype": "bfloat16",
                    "tensor_parallel_size": self._gpus,
                    "enable_prefix_caching": True,
                    "limit_mm_per_prompt": {"image": images, "video": 0},
                    **self._engine_arguments,
                },
            )

    def _lora(self) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(self._path.name, 1, str(self._path))

    def _prompt(self, record: Record, folder: Path, pixels: Pixels) -> dict[str, Any]:
        dialogue = self._dialogue
        images = [
            picture(*pixels(path), pixels.image_processor) for path in image_paths(record["images"], folder)
        ]
        ids = dialogue.tokens(dialogue.prompt(question_of(record)))  # vLLM puts the tokens of each image in
        return {"prompt_token_ids": ids, **({"multi_modal_data": {"image": images}} if images else {})}

    def _sampling(self, record: Record, temperature: float | None, samples: int, seed: int) -> Any:
        own = int.from_bytes(hashlib.sha256(f"{seed} {record['id']}".encode()).digest()[:4])
        return self._vllm.SamplingParams(
            n=samples if temperature else 1,
            temperature=temperature or 0.0,
            seed=own if temperature else None,
            max_tokens=self._max_new_tokens,
            stop_token_ids=sorted(self._stops),
            skip_special_tokens=False,
            include_stop_str_in_output=True,
        )

    def _read(self, written: Any) -> Generation:
        """By its tokens, as with transformers: vLLM's text may lack the stop token, which may belong to the answer."""
        ids, stopped = list(written.token_ids), written.finish_reason == "stop"
        if stopped and isinstance(written.stop_reason, int) and ids[-1:] != [written.stop_reason]:
            ids.append(written.stop_reason)
        kept = ids[:-1] if stopped and ids and ids[-1] in self._stops - self._kept_stops else ids
        return Generation(self._dialogue.processor.tokenizer.decode(kept), not stopped, len(ids))


def _generation_config(base: Path) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(base)
    except OSError:  # a checkpoint may have none
        return GenerationConfig()


def _refuse_what_vllm_ignores(adapter: Path) -> None:
    """A UserError for an adapter of which vLLM would serve a part alone, without a word (vLLM #27916, #32541)."""
    for there, name in (
        (adapters.adapts_vision(adapter), "the vision tower"),
        (adapters.adapts_experts(adapter), "the routed experts"),
    ):
        if there:
            raise UserError(
                f"{adapter}: the adapter is on {name} too, which vLLM would ignore; ask it with evaluation.backend "
                "transformers, or merge it into its base"
            )

"""A model at a server that speaks OpenAI's chat completions: vLLM, SGLang, Ollama, a provider."""

import base64
import io
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.records import Record
from workflow_scripts.evaluation.backends.openai_client import (
    Completion,
    NoAnswer,
    OpenAIClient,
    Server,
    replies,
)
from workflow_scripts.evaluation.generation import Generation
from workflow_scripts.evaluation.questions import question_of
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue, image_paths, parts
from workflow_scripts.models.formats import BEGIN_OF_THOUGHT, END_OF_THOUGHT, AnswerFormat, escape
from workflow_scripts.models.pixels import Pixels, picture

logger = logging.getLogger(__name__)

KEY_VARIABLE = "EVALUATION_API_KEY"
ENCODED_IMAGES = 64  # kept as PNG for the questions that follow


class ServedModel:
    """The model `name` at `server`, shown the very pixels that `dialogue`'s processor would make of an image.

    The server renders the dialogue by its own chat template, and decides by itself what ends an answer. Of
    `server.parameters`, which go before our own fields, None takes a field away.
    """

    def __init__(
        self, server: Server, name: str, dialogue: Dialogue, max_new_tokens: int, first_wait: float = 1
    ) -> None:
        self.checkpoint_settings: dict[str, Any] = {}  # the server's own, which it does not state
        self._client = OpenAIClient(
            server.url, name, KEY_VARIABLE, server.timeout, server.retries, first_wait
        )
        self._concurrent, self._dialogue = server.concurrent, dialogue
        version = VERSIONS[dialogue.model_version]
        self._form = version.answer_format(dialogue.mode)
        options = version.template_options(dialogue.mode)
        fields: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": 0,
            **({"chat_template_kwargs": options} if options else {}),
            **server.parameters,
        }
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def close(self) -> None:
        self._client.close()

    def stated(self) -> str:
        """The model that the server says it answers by, where an alias was asked for; a UserError without a server."""
        hello = [{"role": "user", "content": "Hello"}]
        short = {"max_tokens": 1} if "max_tokens" in self._fields else {}
        try:
            return self._client.complete(hello, **{**self._fields, **short}).model
        except NoAnswer as error:
            raise UserError(f"{self._client.shown}: {error}; see to the server and start again") from None

    def stream(
        self,
        records: Sequence[Record],
        folder: Path,
        blank: bool = False,
        temperature: float | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Iterator[tuple[int, list[Generation]]]:
        """As of a Backend; a UserError at the end where questions had no answer."""
        client = self._client
        logger.info(
            "%d questions and their images are sent to %s, to the model %s",
            len(records),
            client.shown,
            client.model,
        )
        urls = _data_urls(Pixels(self._dialogue.processor.image_processor, blank))
        fields = [self._fields]
        if temperature:
            fields = [
                {**self._fields, "temperature": temperature, "seed": seed + number}
                for number in range(samples)
            ]

        def ask(record: Record) -> list[Completion]:
            messages = _messages(record, folder, self._form, urls)
            return [client.complete(messages, **each) for each in fields]

        failures: list[NoAnswer] = []
        said_models: set[str] = set()
        calls = {index: partial(ask, record) for index, record in enumerate(records)}
        for index, reply in replies(calls, self._concurrent, client.shown):
            if isinstance(reply, NoAnswer):
                failures.append(reply)
                continue
            said_models |= {completion.model for completion in reply}
            if len(said_models) > 1:
                raise UserError(
                    f"{client.shown}: answers came from {' and '.join(sorted(said_models))}; ask for one of them by its "
                    "own name in evaluation.server.model"
                )
            found = [self._read(completion) for completion in reply]
            yield index, found if temperature else found * samples
        if failures:
            raise UserError(
                f"{client.shown}: {len(failures)} of {len(records)} questions had no answer, the first: {failures[0]}; "
                "start again: the others are kept"
            )

    def _read(self, completion: Completion) -> Generation:
        cut = completion.finish_reason == "length"
        return Generation(_whole(completion, self._form, self._dialogue, cut), cut, completion.tokens)


def _whole(completion: Completion, form: AnswerFormat, dialogue: Dialogue, cut: bool) -> str:
    """The text as the model wrote it: with its thought, and the closing tag where the server took it for a stop."""
    text, thought = completion.text, completion.thought
    if thought:
        text = BEGIN_OF_THOUGHT + thought + ("" if cut and not text else END_OF_THOUGHT + text)
    elif END_OF_THOUGHT in text and BEGIN_OF_THOUGHT not in text:  # the server's template has opened it
        text = BEGIN_OF_THOUGHT + text
    rest = text.rpartition("<answer>")[2]
    if cut or not form.tagged or rest == text or "</answer>" in rest:
        return text
    closing = dialogue.processor.tokenizer.convert_tokens_to_ids("</answer>")
    return text + "</answer>" if completion.stop in (None, closing, "</answer>") else text


def _messages(
    record: Record, folder: Path, form: AnswerFormat, url: Callable[[str], str]
) -> list[dict[str, Any]]:
    """The dialogue up to the last question; of earlier answers what stands after the thought, without tags."""
    images = iter(image_paths(record["images"], folder))
    found: list[dict[str, Any]] = []
    for message in question_of(record):
        content: Any = parts(message)
        if isinstance(content, str):
            answer = form.read(content) if message["role"] == "assistant" else None
            content = escape(answer) if answer else content
        else:
            content = [
                {"type": "image_url", "image_url": {"url": url(next(images))}}
                if part["type"] == "image"
                else dict(part)
                for part in content
            ]
        found.append({"role": message["role"], "content": content})
    return found


def _data_urls(pixels: Pixels) -> Callable[[str], str]:
    """From the path of an image to it as the model is shown it, as a PNG in a data URL; from any thread."""
    lock = threading.Lock()

    @lru_cache(ENCODED_IMAGES)
    def encoded(path: str) -> str:
        data = io.BytesIO()
        picture(*pixels(path), pixels.image_processor).save(data, "PNG")
        return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()

    def url(path: str) -> str:
        with lock:  # Pixels is for one thread
            return encoded(path)

    return url

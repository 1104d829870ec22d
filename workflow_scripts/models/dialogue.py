"""From a record to the text and tokens that the model sees, in training and at inference alike.

The checkpoint's own chat template renders everything; this module adds the stop token that no template has.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, SIDES, Message, Record
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.formats import END_OF_THOUGHT, escape
from workflow_scripts.models.interfaces import Processor, frame_rule
from workflow_scripts.models.prompt_styles import ASSISTANT, OURS, PromptStyle

_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


class Part(TypedDict):
    """A piece of a message for a chat template: `type` is image, or text with its `text`."""

    type: str
    text: NotRequired[str]


@dataclass(frozen=True)
class Turn:
    """One assistant turn: the rendered prompt up to it, what is trained, and the images seen so far."""

    prompt: str
    completion: str
    images: list[str]


@dataclass(frozen=True)
class Dialogue:
    """How records become text and tokens for one processor, model version and mode.

    `style` is another than OURS for a model that was trained elsewhere.
    """

    processor: Processor
    model_version: str
    mode: str
    style: PromptStyle = OURS

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text that the model continues: every message, then the start of an assistant turn.

        Earlier answers stand in it without their thoughts and tags (`history`).
        """
        if self.style.opening is None:
            return self._render(self.history(messages), add_generation_prompt=True)
        earlier: list[Message] = [
            {"role": "assistant", "content": _THOUGHT.sub("", message["content"])}
            if message["role"] == "assistant"
            else message
            for message in messages
        ]
        rendered = self._render(earlier, add_generation_prompt=True, thinking=True)
        return rendered.rpartition(ASSISTANT)[0] + ASSISTANT + self.style.opening

    def history(self, messages: Sequence[Message]) -> list[Message]:
        """`messages` as later turns see them: of an earlier assistant turn its bare answer.

        Thoughts are no history, say the authors, whose command line keeps the bare answer (GLM-V, README and
        `trans_infer_cli.py`). Templates of hybrid versions see to it themselves. A turn that does not have the
        form stays as it is.
        """
        version = VERSIONS[self.model_version]
        if version.hybrid:
            return list(messages)
        form = version.answer_format(self.mode)
        return [
            {"role": "assistant", "content": escape(answer)}
            if message["role"] == "assistant" and (answer := form.read(message["content"]))
            else message
            for message in messages
        ]

    def completion(self, messages: Sequence[Message], answer: str) -> str:
        """What the model is trained to write after `prompt(messages)`: the assistant's text and the stop token."""
        prompt = self.prompt(messages)
        whole = self._render(
            [*self.history(messages), {"role": "assistant", "content": answer}], add_generation_prompt=False
        )
        if not whole.startswith(prompt):
            raise UserError(
                f"the chat template of {self.model_version} renders a finished turn differently from its own prompt; "
                "training would not match inference. Use the checkpoint's original template."
            )
        return whole[len(prompt) :] + VERSIONS[self.model_version].stop_token

    def turns(self, record: Record) -> Iterator[Turn]:
        """Each assistant turn of a record as a training example of its own, with the turns before it as context."""
        messages = record["messages"]
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                context = messages[:index]
                seen = sum(earlier["content"].count(IMAGE_PLACEHOLDER) for earlier in context)
                yield Turn(
                    self.prompt(context),
                    self.completion(context, message["content"]),
                    record["images"][:seen],
                )

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, thinking: bool = False
    ) -> str:
        """In this dialogue's mode, or as `thinking` whatever the mode."""
        return self.processor.apply_chat_template(
            [{"role": message["role"], "content": parts(message)} for message in messages],
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **VERSIONS[self.model_version].template_options("thinking" if thinking else self.mode),
        )

    def tokens(self, text: str) -> list[int]:
        """Token ids of rendered text; each image is still one placeholder token."""
        return self.processor.tokenizer.encode(text, add_special_tokens=False)

    def thought_tokens(self, completion_ids: list[int]) -> int:
        """How many tokens of a completion are of its thought, up to and with `</think>`; 0 where it has none."""
        end = self.processor.tokenizer.convert_tokens_to_ids(END_OF_THOUGHT)
        return completion_ids.index(end) + 1 if end in completion_ids else 0

    @property
    def frames(self) -> FrameRule:
        """Which frame stands for an image file of several."""
        return frame_rule(self.processor.image_processor)

    def image_tokens(self, width: int, height: int) -> int:
        """How many tokens an image of this size in pixels takes, without decoding it."""
        image_processor = self.processor.image_processor
        patches = image_processor.get_number_of_image_patches(height, width, {})
        tokens: int = patches // image_processor.merge_size**2
        return tokens


def parts(message: Message) -> str | list[Part]:
    """A user's text with placeholders as the list of images and texts that chat templates expect."""
    if message["role"] != "user":
        return message["content"]
    found: list[Part] = []
    for piece in re.split(f"({re.escape(IMAGE_PLACEHOLDER)})", message["content"]):
        if piece == IMAGE_PLACEHOLDER:
            found.append({"type": "image"})
        elif piece:
            found.append({"type": "text", "text": piece})
    return found


def conversation(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record or a preference pair in TRL's conversational form, for `Dataset.map` over a file of ours.

    Keys: prompt and completion, or prompt, chosen and rejected; each is a list of messages whose content is a list
    of parts, with an image part where a placeholder stood. Of several assistant turns the last is the completion.
    """
    *context, last = record["messages"]
    ends: dict[str, Message]
    if "chosen" in record:
        ends = {side: {"role": "assistant", "content": record[side]} for side in SIDES}
        context.append(last)
    else:
        ends = {"completion": last}
    return {"prompt": list(map(_in_parts, context)), **{key: [_in_parts(end)] for key, end in ends.items()}}


def _in_parts(message: Message) -> dict[str, Any]:
    content = parts(message)
    if isinstance(content, str):  # Arrow has one type a column
        content = [{"type": "text", "text": content}]
    return {"role": message["role"], "content": content}


def image_paths(record_images: list[str], folder: Path) -> list[str]:
    """A record's image paths, relative to its file in `folder`, as paths that open from here."""
    return [str(folder / image) for image in record_images]

"""Answer formats: the one place that writes a training target and reads an answer back from a text.

4.1V marks its answer with `<answer>` tags, after a `<think>` block in thinking mode. 4.5V and later use the
simplified form: the answer follows the thought without tags, and in base mode stands alone.
Reading follows the models' official rule (GLM-V, `glmv_reward`): a text that does not have the form, an
unclosed thought for one, holds no answer; one box holds the answer, several boxes hold none.
"""

import re
from dataclasses import dataclass

BEGIN_OF_THOUGHT, END_OF_THOUGHT = "<think>", "</think>"  # tokens of their own in every checkpoint
_THOUGHT = re.compile(r"\s*<think>(?P<thought>.*?)</think>(?P<rest>.*)", re.DOTALL)
_ANSWER = re.compile(r"\s*<answer>(?P<answer>.*?)</answer>", re.DOTALL)
# What may end generation and is yet a part of the form: 4.1V's published checkpoints list `</answer>` as an eos.
CLOSING_TAGS = frozenset({"</think>", "</answer>", "<|end_of_box|>"})
_BOX = re.compile(r"<\|begin_of_box\|>(.*?)<\|end_of_box\|>", re.DOTALL)

# Markup of the formats, special tokens and the image placeholder must not arise from a row's own text.
_MARKUP = re.compile(
    r"<(?=/?(?:think|answer|image|video|sop|eop)>|\|)|&(?=(?:lt|amp|lsqb);)|\[(?=[gs]?MASK\])"
)
_ESCAPES = {"<": "&lt;", "&": "&amp;", "[": "&lsqb;"}
_ESCAPED = re.compile(r"&(lt|amp|lsqb);")
_UNESCAPES = {"lt": "<", "amp": "&", "lsqb": "["}


def escape(text: str) -> str:
    """Make `text` safe inside a dialogue; ordinary text comes back unchanged."""
    return _MARKUP.sub(lambda match: _ESCAPES[match[0]], text)


def unescape(text: str) -> str:
    """Undo `escape`."""
    return _ESCAPED.sub(lambda match: _UNESCAPES[match[1]], text)


@dataclass(frozen=True)
class AnswerFormat:
    """How one (model version, mode) wraps its answers."""

    thinking: bool
    tagged: bool

    def write(self, answer: str, thought: str = "") -> str:
        """The assistant's text for `answer`; `thought` is used in thinking mode only.

        Raises ValueError for a blank answer: nothing could be read back from it.
        """
        answer = escape(answer.strip())
        if not answer:
            raise ValueError("an answer must not be blank")
        target = f"<answer>{answer}</answer>" if self.tagged else answer
        return f"<think>{escape(thought.strip())}</think>{target}" if self.thinking else target

    @property
    def after_thought(self) -> str:
        """What stands between a thought and the answer."""
        return END_OF_THOUGHT + ("<answer>" if self.tagged else "")

    def read(self, text: str) -> str | None:
        """The answer in a generated `text`, or None where the text does not have the format."""
        parsed = self.parse(text)
        return parsed[1] if parsed else None

    def read_leniently(self, text: str) -> str | None:
        """The answer of a model that was never trained on this form, or None where it gave none.

        Without a thought or tags the text is the answer itself; of a base model, which goes on writing, its first
        line. What official reading calls no answer stays none: an unclosed thought, several boxes.
        """
        if (answer := self.read(text)) is not None:
            return answer
        rest = text.rpartition("</think>")[2]
        if "<think>" in rest:
            return None
        if "<answer>" in rest:
            rest = rest.rpartition("<answer>")[2]
        rest = rest.partition("</answer>")[0]
        boxes = _BOX.findall(rest)
        if len(boxes) > 1:
            return None
        lines = (boxes[0] if boxes else rest).strip().splitlines()
        answer = "\n".join(lines[:1] if self.tagged and not self.thinking else lines)
        return unescape(answer).strip() or None

    def parse(self, text: str) -> tuple[str, str] | None:
        """(thought, answer) in a generated `text`; the thought is "" where there is none."""
        found = self._parts(text)
        if found is None:
            return None
        thought, answer = (unescape(part.strip()).strip() for part in found)
        return (thought, answer) if answer else None

    def rewrite(self, text: str) -> str:
        """A person's `text` in this format: what has its form keeps it, anything else is the answer itself.

        Raises ValueError for a blank answer and for markup that is not of this form: it would be trained as text.
        """
        thought, answer = self._parts(text) or ("", text)
        for part in (thought, answer):
            markup = next((match for match in _MARKUP.finditer(part) if match[0] != "&"), None)
            if markup:
                where = part[markup.start() :].split("\n")[0][:20]
                raise ValueError(f"markup {where!r} is not of the form {self.write('…', '…')}")
        return self.write(unescape(answer), unescape(thought))

    def _parts(self, text: str) -> tuple[str, str] | None:
        """(thought, answer) as they stand in `text`, still escaped."""
        thought = ""
        if match := _THOUGHT.fullmatch(text):
            thought, text = match["thought"], match["rest"]
        elif self.thinking:
            return None
        if "<think>" in text or "</think>" in text:
            return None
        if self.tagged:
            match = _ANSWER.match(text)
            if match is None:
                return None
            text = match["answer"]
        boxes = _BOX.findall(text)
        return None if len(boxes) > 1 else (thought, boxes[0] if boxes else text)

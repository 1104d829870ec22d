"""The catalogue of models: one declarative row per version. What differs between versions stands here alone.

docs/extending.md says how a version is added.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from workflow_scripts.models.formats import AnswerFormat

Mode = Literal["thinking", "base"]
MODES: tuple[Mode, ...] = get_args(Mode)
CHAT_TEMPLATES = Path(__file__).parent / "chat_templates"


@dataclass(frozen=True)
class Version:
    """A model version.

    `repositories` are the default hub ids by mode. `architecture` is the checkpoint's `config.model_type`; `also` are
    others by which transformers has the same modules under another class.
    `tagged` says whether answers stand in `<answer>` tags. `hybrid` versions switch thinking by the chat
    template's `enable_thinking`. `processor` begins the names of its processor's classes in transformers.
    `stop_token` ends each trained answer: the template has no end-of-turn token,
    so without one a fine-tuned model never learns to stop; it must be among the checkpoint's eos tokens.
    """

    repositories: dict[Mode, str]
    architecture: str
    tagged: bool
    hybrid: bool
    processor: Literal["Glm4v", "Glm46V"] = "Glm4v"
    also: tuple[str, ...] = ()
    stop_token: str = "<|user|>"

    def answer_format(self, mode: str) -> AnswerFormat:
        """How answers are written and read in `mode`, one of MODES."""
        return AnswerFormat(thinking=mode == "thinking", tagged=self.tagged)

    def template_options(self, mode: str) -> dict[str, bool]:
        """What the chat template is given for `mode`, in training and at inference alike."""
        return {"enable_thinking": mode == "thinking"} if self.hybrid else {}

    def chat_template(self) -> str:
        """Our template, for a checkpoint that ships none: the Base model and the stand-ins."""
        name = "hybrid" if self.hybrid else "tagged"
        return (CHAT_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


VERSIONS = {
    "4.1v": Version(
        repositories={"thinking": "zai-org/GLM-4.1V-9B-Thinking", "base": "zai-org/GLM-4.1V-9B-Base"},
        architecture="glm4v",
        tagged=True,
        hybrid=False,
    ),
    "4.5v": Version(
        repositories={"thinking": "zai-org/GLM-4.5V", "base": "zai-org/GLM-4.5V"},
        architecture="glm4v_moe",
        tagged=False,
        hybrid=True,
    ),
    # Classes and template as those of 4.5V, as far as public code tells (tests/models/checkpoint_facts.yaml); not tried.
    "4.6v-flash": Version(
        repositories={"thinking": "zai-org/GLM-4.6V-Flash", "base": "zai-org/GLM-4.6V-Flash"},
        architecture="glm4v",
        tagged=False,
        hybrid=True,
        processor="Glm46V",
        also=("glm46v",),
    ),
    "4.6v": Version(
        repositories={"thinking": "zai-org/GLM-4.6V", "base": "zai-org/GLM-4.6V"},
        architecture="glm4v_moe",
        tagged=False,
        hybrid=True,
        processor="Glm46V",
    ),
}

"""How models that were trained elsewhere were prompted: what stood between `<|assistant|>` and what they had to write.

LLaMA-Factory 0.9.5 and ms-swift 4.6.0 (their `data/template.py` and `template/templates/glm.py`) write all else of a
dialogue as the checkpoints' templates do.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.base import files
from workflow_scripts.base.paths import MANIFEST, METRICS
from workflow_scripts.models.formats import BEGIN_OF_THOUGHT

ASSISTANT = "<|assistant|>"


@dataclass(frozen=True)
class PromptStyle:
    """`opening` follows the last `<|assistant|>` of a prompt; None: whatever the folder's chat template puts there."""

    name: str
    opening: str | None
    meaning: str


OURS = PromptStyle("ours", None, "by the folder's chat template, as this project trains")
LLAMA_FACTORY = PromptStyle(
    "llamafactory",
    "<think>",
    "LLaMA-Factory's reasoning templates glm4v and glm4_5v, which train an empty thought",
)
LLAMA_FACTORY_NO_THINKING = PromptStyle(
    "llamafactory_nothink", "<think>\n\n</think>\n\n", "the same with enable_thinking: false"
)
SWIFT = PromptStyle(
    "swift", "\n<think></think>", "ms-swift's template glm4_5v; its glm4v is prompted as ours"
)
STYLES = {style.name: style for style in (OURS, LLAMA_FACTORY, LLAMA_FACTORY_NO_THINKING, SWIFT)}
AUTO = "auto"

# What LLaMA-Factory makes of its template where it saves a model: texts are joined, and no prompt is opened.
_LLAMA_FACTORY_TEMPLATE = re.compile(r"loop_messages.*\+ content \+ '<\|assistant\|>'", re.DOTALL)
_LLAMA_FACTORY_FILES = ("llamaboard_config.yaml", "training_args.yaml", "trainer_log.jsonl")


def recognised(path: Path) -> PromptStyle:
    """The style that the files in the folder of a model speak for; OURS where none speaks for another."""
    if (arguments := _arguments(path / "args.json")) and "template" in arguments:  # ms-swift's
        thinking = arguments.get("enable_thinking") or not _swift_is_hybrid(str(arguments["template"]))
        return OURS if thinking else SWIFT
    if not _is_llama_factorys(path):
        return OURS
    told = _arguments(path / "training_args.yaml")
    return LLAMA_FACTORY_NO_THINKING if told.get("enable_thinking") is False else LLAMA_FACTORY


def _swift_is_hybrid(template: str) -> bool:
    return template.startswith("glm4_5")


def _is_llama_factorys(path: Path) -> bool:
    if any((path / name).is_file() for name in _LLAMA_FACTORY_FILES):
        return True
    card, template = path / "README.md", path / "chat_template.jinja"
    return (card.is_file() and "- llama-factory" in card.read_text("utf-8", errors="replace")) or (
        template.is_file()
        and bool(_LLAMA_FACTORY_TEMPLATE.search(template.read_text("utf-8", errors="replace")))
    )


def _arguments(path: Path) -> dict[str, Any]:
    """The arguments of a training in a JSON or YAML file; {} where there is none that can be read."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def is_foreign(path: Path) -> bool:
    """Whether neither a download nor a training of this project has made the model at `path`."""
    if (path / MANIFEST).is_file():
        return False
    metrics = path / METRICS
    return not (metrics.is_file() and "stage" in files.read_object(metrics))


def opened(prompt: str, style: PromptStyle) -> str:
    """What belongs to the answer and stands in `prompt`: a thought that it opens, and one that `style` closes there."""
    tail = prompt.rpartition(ASSISTANT)[2]
    is_open = BEGIN_OF_THOUGHT in tail and "</think>" not in tail
    return tail.strip() if is_open or (style.opening and BEGIN_OF_THOUGHT in tail) else ""

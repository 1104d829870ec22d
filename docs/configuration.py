"""Write docs/configuration.md and docs/configuration.zh.md from config.schema.json: `python -m docs.configuration`.

What keys mean stands in the settings' own descriptions, in English; docs/configuration.zh.yaml has them in Chinese.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.configuration.dependencies import READ_BY

ROOT = Path(__file__).parents[1]
SCHEMA: dict[str, Any] = json.loads((ROOT / "config.schema.json").read_text(encoding="utf-8"))
WORDS = {
    "title": ("Every key of the configuration", "全部配置键"),
    "links": (
        "[中文](configuration.zh.md) · [Running](running.md) · [README](../README.md)",
        "[English](configuration.md) · [运行](running.zh.md) · [README](../README.zh.md)",
    ),
    "head": (
        "Written from `config.schema.json` by `python -m docs.configuration`. A key that is left out has its default; "
        "`null` gives a key of another file back its default. The last column says which stages rerun when it changes.",
        "由 `python -m docs.configuration` 从 `config.schema.json` 生成。没有写出的键取默认值；"
        "写 `null` 可以让另一个文件里的键恢复默认值。最后一列是改动后会重跑的阶段。",
    ),
    "columns": (("key", "type", "default", "meaning", "reruns"), ("键", "类型", "默认值", "含义", "重跑")),
    "top": ("At the top", "顶层"),
    "any": ("any", "任意"),
    "none": ("none", "无"),
    "empty": ("empty", "空"),
    "required": ("required", "必填"),
}
# The sections of the page, and where each stands in the schema; the last are entries under names of the user's.
SECTIONS = {
    "data": "Data", "sft": "Sft", "sft.lora": "Lora", "sft.loss_weights": "LossWeights", "preferences": "Preferences",
    "dpo": "Dpo", "evaluation": "EvaluationSettings", "evaluation.server": "ServerSettings",
    "evaluation.judge": "JudgeSettings", "datasets.{name}": "Source", "datasets.{name} (members)": "Combination",
    "models.{version}.{mode}": "Checkpoint", "runs": "RunChoice", "cluster": "Cluster",
}  # fmt: skip


def chinese() -> dict[str, str]:
    """The meaning of keys in Chinese by their path; one that is missing is shown in English."""
    found: dict[str, str] = yaml.safe_load(Path(__file__).with_suffix(".zh.yaml").read_text(encoding="utf-8"))
    return found


def kind(value: dict[str, Any], language: int) -> str:
    """The type of a value as a person writes it."""
    if "$ref" in value:
        return "section" if not language else "一节"
    if "enum" in value:
        return ", ".join(f"`{name}`" for name in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value or "oneOf" in value:
        kinds = dict.fromkeys(kind(option, language) for option in value.get("anyOf", value.get("oneOf", [])))
        kinds.pop("null", None)
        return (" or " if not language else " 或 ").join(kinds)
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = " ".join(f"{sign} {value[name]:.12g}" for name, sign in limits.items() if name in value)
    return f"{value.get('type', WORDS['any'][language])} {bounds}".strip()


def default(value: dict[str, Any], required: bool, language: int) -> str:
    if required:
        return WORDS["required"][language]
    if "$ref" in value or (isinstance(value.get("default"), dict) and value["default"]):
        return "…"
    found = value.get("default")
    if found is None or found in ([], {}, ""):
        return WORDS["empty"][language]
    return f"`{json.dumps(found, ensure_ascii=False)}`"


def reruns(section: str, key: str, language: int) -> str:
    stages = READ_BY.get(section.partition(".")[0], {})
    name = section.partition(".")[2] or key
    if name not in stages or "{" in section:
        return ""
    return ", ".join(stages[name]) or WORDS["none"][language]


def described(value: dict[str, Any]) -> str:
    """What a section says about itself."""
    name = value.get("$ref", "").rpartition("/")[2]
    return SCHEMA["$defs"][name].get("description", "") if name else ""


def plain(text: str) -> str:
    """`text` without a meaning of its own to Markdown."""
    for sign in "\\*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("<", "&lt;")


def rows(section: str, values: dict[str, Any], language: int) -> Iterator[str]:
    """The rows of a table, a key each."""
    meanings = chinese() if language else {}
    required = values.get("required", [])
    for key, value in values["properties"].items():
        path = f"{section}.{key}" if section else key
        shared = f"training.{key}" if section in ("sft", "dpo") else ""
        meaning = meanings.get(path) or meanings.get(shared) or value.get("description") or described(value)
        cells = (
            f"`{key}`",
            kind(value, language),
            default(value, key in required, language),
            plain(meaning),
            reruns(section, key, language),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def page(language: int) -> str:
    """The whole page: 0 English, 1 Chinese."""
    lines = [f"# {WORDS['title'][language]}", "", WORDS["links"][language], "", WORDS["head"][language]]
    columns = WORDS["columns"][language]
    for section, name in {"": "", **SECTIONS}.items():
        values = SCHEMA["$defs"][name] if name else SCHEMA
        lines += ["", f"## {f'`{section}`' if section else WORDS['top'][language]}", ""]
        lines += [
            "| " + " | ".join(columns) + " |",
            "|---" * len(columns) + "|",
            *rows(section, values, language),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for language, name in enumerate(("configuration.md", "configuration.zh.md")):
        Path(__file__).with_name(name).write_text(page(language), encoding="utf-8")

"""Thoughts for thinking mode, built from a row's own annotations and nothing else.

What the question is about comes first, then the facts of the row; a fact that gives the answer away comes
last, so that the answer's words appear only where a fact of the row states them.
"""

import re
from collections.abc import Iterator, Sequence

from workflow_scripts.datasets import terminology
from workflow_scripts.datasets.records import Example

_PHRASES = {
    "en": {
        "type": "The question is about {}.",
        "modality": "The image is of the modality {}.",
        "organ": "It shows: {}.",
        "entity": "The subject is {}.",
        "relation": "What is asked of it is: {}.",
    },
    "zh": {
        "type": "这个问题关于{}。",
        "modality": "图像的成像方式是{}。",
        "organ": "图像显示：{}。",
        "entity": "所问的对象是{}。",
        "relation": "所问的内容是：{}。",
    },
}
_TYPES = {
    "MODALITY": ("the imaging modality", "成像方式"),
    "PLANE": ("the imaging plane", "成像平面"),
    "POSITION": ("a position", "位置"),
    "POS": ("a position", "位置"),
    "ORGAN": ("an organ", "器官"),
    "ABNORMALITY": ("an abnormality", "异常"),
    "ABN": ("an abnormality", "异常"),
    "PRES": ("whether something is present", "是否存在"),
    "COLOR": ("a colour", "颜色"),
    "SIZE": ("a size", "大小"),
    "QUANTITY": ("a number", "数量"),
    "COUNT": ("a number", "数量"),
    "SHAPE": ("a shape", "形状"),
    "KG": ("medical knowledge", "医学知识"),
    "ATTRIB": ("an attribute", "属性"),
}
# VQA-RAD's abbreviations.
_ORGANS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}
# SLAKE's English locations of Chinese questions that the terminology does not have.
_CHINESE = {
    "Brain_Tissue": "脑组织",
    "Brain_Face": "脑部和面部",
    "Chest_heart": "胸部的心脏",
    "Chest_lung": "胸部的肺",
    "Chest_mediastinal": "胸部的纵隔",
}
# What is not of the language: a small letter in Chinese (an abbreviation, such as CT, is of any), a character in English.
_FOREIGN = {"zh": re.compile("[a-z]"), "en": re.compile("[\u3400-\u9fff]")}
# Latin letters and digits, or others, such as Chinese ones, which no spaces divide: "CT图像" is two words.
_WORD = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]+")


def thought(example: Example) -> str:
    """One to four short sentences in the row's language; "" where the row says nothing about itself.

    What the row states in the other language is said by its canonical name or, where it has none, left out.
    """
    phrases = _PHRASES[example.language]
    plain: list[str] = []
    revealing: list[str] = []
    for kind, stated in _facts(example):
        if value := _in_language(stated, example.language):
            tells = any(_mentions(fact, example.answer) for fact in (stated, value))
            (revealing if tells else plain).append(phrases[kind].format(value))
    return ("" if example.language == "zh" else " ").join(plain + revealing)


def _in_language(value: str, language: str) -> str:
    if language == "zh" and value in _CHINESE:
        return _CHINESE[value]
    value = value.replace("_", " ")
    if (language == "zh" and value.isascii()) or _FOREIGN[language].search(value):
        named = terminology.load().canonical(value, language)
        return named or ("" if _FOREIGN[language].search(value) else value)
    return value


def _facts(example: Example) -> Iterator[tuple[str, str]]:
    known = _TYPES.get(example.question_type.upper())
    if known:
        yield "type", known[example.language == "zh"]
    if example.modality:
        yield "modality", example.modality
    if example.organ:
        yield "organ", _ORGANS.get(example.organ, example.organ)
    triple: Sequence[str] = example.facts.get("triple", ())
    entity, relation, *_ = [*triple, "", ""]
    if _informative(entity):
        yield "entity", entity
    if _informative(relation):
        yield "relation", relation


def _informative(term: str) -> bool:
    """SLAKE writes `vhead` for what the picture shows and `_` for what a triple leaves open."""
    return bool(term.strip("_ ")) and not term.lower().startswith("vhead")


def _mentions(fact: str, answer: str) -> bool:
    """Whether a word of the answer stands in the fact; short Latin ones as whole words, "CT" not in "section"."""
    said = set(_WORD.findall(fact.lower()))
    return any(
        word in said or ((len(word) > 2 or not word.isascii()) and word in fact.lower())
        for word in _WORD.findall(answer.lower())
    )

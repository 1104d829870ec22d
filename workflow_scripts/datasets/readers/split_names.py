"""The split that a file or a folder is named after: train.csv, rad_test.csv, valset/, 测试集.jsonl."""

import re
from pathlib import PurePosixPath

from workflow_scripts.base.errors import shown

SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "validate": "validation",
    "valid": "validation", "val": "validation", "dev": "validation", "test": "test", "testing": "test",
    "训练": "train", "訓練": "train", "验证": "validation", "驗證": "validation", "测试": "test", "測試": "test",
}  # fmt: skip
# What names add to a split: trainset.csv, train_images/, 测试集.
_ADDED = frozenset(
    (
        "set", "sets", "data", "dataset", "split", "file", "files", "folder", "image", "images", "img", "imgs",
        "picture", "pictures", "集", "数据", "數據", "图像", "图片",
    )
)  # fmt: skip
# Latin words as they are written in a row or with capitals (RadTest), others whole.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+")
_SPLIT = "|".join(sorted(SPLITS, key=len, reverse=True))
_WITH_ADDED = re.compile(rf"({_SPLIT})(?:{'|'.join(_ADDED)})*")
_NUMBERED = re.compile(rf"({_SPLIT})[\s_-]?\d+")  # an image's name: train_0001
# Words that hold a split's name or mean one of two splits, and common ones that only look like it.
_UNCLEAR = re.compile(
    r"\w*(?:train|training|test|testing|valid|validation|val)|(?:train|test|valid)\w*"
    r"|evaluation|development|vali|tst|trn|hold|held|holdout|heldout|unseen"
    r"|\w*(?:训练|訓練|验证|驗證|测试|測試|评估|評估|开发|開發)\w*"
)
_ORDINARY = re.compile(
    r"(?:con|re|di|s)?strain\w*|trainee\w*|(?:la|con|pro|at|de|grea|fa|be|ol|new|lowe|highe)test\w*|newest|best|"
    r"test(?:is|es|icle|icles|icular|osterone)|\w*(?:inter|sur[vr]i|remo|retrie|arri|o|ova|carni|festi)val"
)


def split(name: str) -> str:
    """The split that `name`, without extension, states among other words; "" where it states none.

    A name of two splits, or one that may or may not mean a split (trainval, radtest, eval), is a ValueError.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    found = {SPLITS[match[1]] for word in words if (match := _WITH_ADDED.fullmatch(word))}
    unclear = [word for word in words if not _WITH_ADDED.fullmatch(word) and _is_unclear(word)]
    if len(found) > 1 or unclear:
        raise ValueError(
            f"{shown(name)} does not tell one split" + (f" ({', '.join(unclear)})" if unclear else "")
        )
    return found.pop() if found else ""


def of_image(path: str) -> str:
    """The split that the folders of an image, or its numbered name, are called and nothing else; "" for none.

    images/test/1.png, val_images/1.png and train_0001.jpg have one; two different ones are a ValueError.
    """
    *folders, name = PurePosixPath(path).parts or ("",)
    found = {of_folder(folder) for folder in folders}
    if numbered := _NUMBERED.fullmatch(PurePosixPath(name).stem.lower()):
        found.add(SPLITS[numbered[1]])
    found -= {""}
    if len(found) > 1:
        raise ValueError(f"{shown(path)} names two splits")
    return found.pop() if found else ""


def of_folder(name: str) -> str:
    """The split that a folder is called, and nothing else; "" for none."""
    words = [word.lower() for word in _WORD.findall(name)]
    matches = [match for word in words if (match := _WITH_ADDED.fullmatch(word))]
    only = len(matches) == 1 and all(_WITH_ADDED.fullmatch(word) or word in _ADDED for word in words)
    return SPLITS[matches[0][1]] if only else ""


def _is_unclear(word: str) -> bool:
    return bool(_UNCLEAR.fullmatch(word)) and not _ORDINARY.fullmatch(word)

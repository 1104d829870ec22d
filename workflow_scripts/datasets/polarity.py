"""The bare words that answer yes and no: the one rule for what a closed question is, where its set states none."""

from workflow_scripts.datasets.tokens import tokens

YES = (
    "yes",
    "yeah",
    "yep",
    "是",
    "是的",
    "有",
    "有的",
    "包含",
    "包括",
    "存在",
    "可以",
    "能",
    "会",
    "都是",
    "对",
    "对的",
    "会的",
    "可见",
    "能够",
    "正确",
)
NO = (
    "no", "nope", "不", "不是", "不是的", "否", "没", "没有", "没有的", "无", "并无", "不包含", "不包括", "不存在", "不可以", "不能",
    "不会", "不对", "都不是", "不可见", "不能够", "未见", "未见到", "未发现", "没有发现", "未看到", "未检出", "不正确",
)  # fmt: skip
# The traditional characters of these words, and of those that doubt or grade.
_TRADITIONAL = str.maketrans(
    "沒無對會見發現並確檢這張圖裡裏內於該夠難異斷幅", "没无对会见发现并确检这张图里里内于该够难异断幅"
)
_BARE = {tuple(tokens(word)): said for said, words in (("yes", YES), ("no", NO)) for word in words}


def simplified(text: str) -> str:
    """`text` with the traditional characters of yes/no answers as simplified ones."""
    return text.translate(_TRADITIONAL)


def bare(answer: str) -> str | None:
    """ "yes" or "no" where `answer` is one of these words and nothing else, else None.

    Letter case, punctuation, and traditional characters do not count: "Yes.", 有。, 沒有.
    """
    return _BARE.get(tuple(tokens(simplified(answer))))


def is_yes_or_no(answer: str) -> bool:
    """Whether `answer` is a bare yes or no."""
    return bare(answer) is not None

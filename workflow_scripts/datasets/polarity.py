"""The bare words that answer yes and no."""

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
)
NO = (
    "no", "nope", "不", "不是", "否", "没有", "无", "不包含", "不包括", "不存在", "不可以", "不能", "不会", "不对", "都不是"
)  # fmt: skip
_BARE = frozenset(YES + NO)


def is_yes_or_no(answer: str) -> bool:
    """Whether `answer` is one of these words, in any letter case, and nothing else."""
    return answer.strip().casefold() in _BARE

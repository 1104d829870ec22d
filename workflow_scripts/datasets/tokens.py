"""Answers as normalised tokens: what the scorer compares and the terminology looks up."""

import re
import unicodedata

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())}
_ARTICLES = frozenset(("a", "an", "the"))
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
# A sign, a comparison or a per cent changes what a finding means ("HER2+", "< 5 %"): these are tokens too.
_TOKEN = re.compile(rf"(?:(?<!\S)-)?\d+(?:\.\d+)*|[{_CJK}]|[^\W_{_CJK}]+|[%+<>≤≥]")
_GROUPED_DIGITS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def tokens(text: str) -> list[str]:
    """The normalised tokens of a text: NFKC, no case, punctuation or articles; CJK one by one.

    "zero" to "twenty" become digits; "5cm" is "5", "cm". Decimals, a number's sign and % + < > ≤ ≥ stay.
    Empty only for text without any letter, digit or such sign.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"['’]", "", text.replace("−", "-"))
    found: list[str] = _TOKEN.findall(_GROUPED_DIGITS.sub("", text))
    # Nothing follows the "A" of "hepatitis A", so that is not an article.
    kept = [token for token in found[:-1] if token not in _ARTICLES] + found[-1:]
    return [_DIGITS.get(token, token) for token in kept]

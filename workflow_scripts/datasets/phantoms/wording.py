"""What is asked about a scene, in English and Chinese.

Nothing may be guessed from the wording: open answers are spread over four to seven words, and closed
questions are aimed so that each text is answered yes half of the time.
"""

import random
from dataclasses import dataclass

from workflow_scripts.datasets.phantoms.scenes import STAINS, Scene
from workflow_scripts.datasets.phantoms.terms import said, title

# Types are SLAKE's content types; of each question's two phrasings a scene uses one.
_WORDING = {
    "modality": ("Modality", {
        "en": ("What modality is used to take this image?", "Which imaging modality is this?"),
        "zh": ("这张图片的成像方式是什么?", "这是哪种成像方式?")}),
    "body part": ("Position", {
        "en": ("Which part of the body does this image belong to?", "What body part is shown?"),
        "zh": ("图像里包含的区域属于身体哪个部分?", "图中显示的是什么部位?")}),
    "marker": ("Position", {
        "en": ("In which corner is the marker?", "Where is the square marker?"),
        "zh": ("标记在图像的哪个角?", "方形标记在哪里?")}),
    "marker edge": ("Position", {
        "en": ("Is the marker at the {edge}?", "Is the square marker at the {edge} of the image?"),
        "zh": ("标记在图像的{edge}吗?", "方形标记是在{edge}吗?")}),
    "abnormality": ("Abnormality", {
        "en": ("What abnormality is seen?", "What is abnormal in this image?"),
        "zh": ("图片中有什么异常?", "图中的异常是什么?")}),
    "site": ("Position", {
        "en": ("Where is the abnormality?", "In which structure is the abnormality located?"),
        "zh": ("异常病变在哪个位置?", "异常位于哪个结构?")}),
    "kind": ("Abnormality", {
        "en": ("Is there {article} {kind}?", "Does the image show {article} {kind}?"),
        "zh": ("图中有{kind}吗?", "图片中能看到{kind}吗?")}),
    "large": ("Size", {
        "en": ("Is the abnormality large?", "Is it a large abnormality?"),
        "zh": ("异常病变大吗?", "异常的范围大吗?")}),
    "enlarged": ("Size", {
        "en": ("Is the {organ} enlarged?", "Does the {organ} look enlarged?"),
        "zh": ("{organ}增大了吗?", "{organ}看起来增大吗?")}),
    "stain": ("Color", {
        "en": ("What is the color of the stain?", "Which color is the background?"),
        "zh": ("染色是什么颜色?", "背景是哪种颜色?")}),
    "stain is": ("Color", {
        "en": ("Is the stain {color}?", "Is the background {color}?"),
        "zh": ("染色是{color}吗?", "背景是{color}吗?")}),
    "count": ("Quantity", {
        "en": ("How many cells are there?", "What is the number of cells?"),
        "zh": ("图中有几个细胞?", "细胞的数量是多少?")}),
    "many": ("Quantity", {
        "en": ("Are there more than two cells?", "Does the image show more than two cells?"),
        "zh": ("细胞多于两个吗?", "图中的细胞超过两个吗?")}),
    "round": ("Shape", {
        "en": ("Are the cells round?", "Do the cells have a round shape?"),
        "zh": ("细胞是圆形的吗?", "细胞的形状是圆的吗?")}),
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question with its only answer; closed ones are answered yes or no. `type` is a SLAKE content type."""

    text: str
    answer: str
    closed: bool
    type: str


def _asked(scene: Scene, chance: random.Random) -> list[tuple[str, str | bool, dict[str, str]]]:
    """(key in _WORDING, answer as a term or a truth, terms that fill the wording)."""
    anatomy = scene.anatomy
    edge = chance.choice(("top", "bottom", "left", "right"))
    asked: list[tuple[str, str | bool, dict[str, str]]] = [
        ("modality", scene.modality, {}),
        ("body part", anatomy.body_part, {}),
        ("marker", scene.marker, {}),
        ("marker edge", edge in scene.marker, {"edge": edge}),
    ]
    if cells := scene.cells:
        color = _aimed(cells.stain, STAINS, 1 / 2, chance)
        return asked + [
            ("stain", cells.stain, {}),
            ("stain is", color == cells.stain, {"color": color}),
            ("count", str(cells.count), {}),
            ("many", cells.count > 2, {}),
            ("round", cells.shape == "round", {}),
        ]
    finding = scene.finding
    # A third of the scenes have no finding and can only answer no, so the others say yes in three of four.
    kind = _aimed(finding.kind, anatomy.kinds, 3 / 4, chance) if finding else chance.choice(anatomy.kinds)
    asked += [
        ("abnormality", finding.kind if finding else "none", {}),
        ("kind", finding is not None and kind == finding.kind, {"kind": kind}),
        ("enlarged", scene.enlarged, {"organ": anatomy.resizable}),
    ]
    if finding:
        asked += [("site", finding.site, {}), ("large", finding.size == "large", {})]
    return asked


def _aimed(truth: str, choices: tuple[str, ...], share: float, chance: random.Random) -> str:
    """The true choice with probability `share`, else one of the others."""
    if chance.random() < share:
        return truth
    return chance.choice([choice for choice in choices if choice != truth])


def questions(scene: Scene, language: str = "en", rephrased: bool = False) -> list[Question]:
    """Seven questions about a scene without a finding, nine about others; `rephrased` in their other wording.

    `language` is "en" or "zh". The same things are asked in both languages and both wordings.
    """
    chance = random.Random(f"questions {scene.seed}")
    written = []
    for key, answer, terms in _asked(scene, chance):
        kind, wordings = _WORDING[key]
        wording = wordings[language][(chance.randrange(2) + rephrased) % 2]
        words = {name: said(term, language) for name, term in terms.items()}
        words["article"] = "an" if terms.get("kind", "")[:1] == "e" else "a"
        term = ("yes" if answer else "no") if isinstance(answer, bool) else answer
        closed = isinstance(answer, bool)
        written.append(Question(wording.format(**words), title(term, language), closed, kind))
    return written

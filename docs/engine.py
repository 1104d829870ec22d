"""Draw docs/engine.svg and docs/engine.zh.svg: `python docs/engine.py`."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple


class Node(NamedTuple):
    """A part of the batch's text, in depth-first order; `parent` is the number of the node it goes on from."""

    name: tuple[str, str]  # English, Chinese
    parent: int | None
    tokens: int
    kind: str


# Two questions about one picture; the second with a chosen and a rejected answer.
NODES = [
    Node(("picture", "图像"), None, 3, "image"),
    Node(("Which organ?", "哪个器官？"), 0, 2, "question"),
    Node(("Liver", "肝"), 1, 1, "answer"),
    Node(("Is it enlarged?", "增大了吗？"), 0, 2, "question"),
    Node(("Yes", "是"), 3, 1, "answer"),
    Node(("No", "否"), 3, 1, "answer"),
]
COLOURS = {"image": "#2f6fb3", "question": "#5b6570", "answer": "#2e7d4f"}
HEADS = (
    ("The rows of a batch as a tree: each node runs once", "一个批次的各行组成一棵树：每个节点只算一次"),
    ("Token q sees k where k ≤ q < end[k]", "token q 能看见 k，当且仅当 k ≤ q < end[k]"),
)
STRIP = (
    "One sequence in depth-first order; positions count by depth",
    "按深度优先排成一个序列；位置按深度计数",
)
ROWS = ("Gathered back to rows, as TRL's losses see them", "再还原成各行，与 TRL 的损失所见相同")
TITLE = ("How the engine runs a shared prefix once", "引擎怎样让共享的前缀只算一次")
GREY, WIDTH, CELL, LEFT, GRID, STEP = "#7d8792", 900, 26, 8, 570, 62
STYLE = f"""
    text {{ font-family: system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC",
      "Microsoft YaHei", sans-serif; fill: #fff; font-size: 13px }}
    .head {{ font-size: 15px; font-weight: 600; fill: {GREY} }}
    .note {{ fill: {GREY} }}
    .line {{ fill: none; stroke: {GREY}; stroke-width: 1.6 }}
"""


def depths() -> list[int]:
    """How many nodes lie above each."""
    found: list[int] = []
    for node in NODES:
        found.append(0 if node.parent is None else found[node.parent] + 1)
    return found


def tokens() -> list[int]:
    """The node of each token of the sequence."""
    return [number for number, node in enumerate(NODES) for _ in range(node.tokens)]


def path(number: int) -> list[int]:
    """The nodes from the root to this one."""
    parent = NODES[number].parent
    return [*([] if parent is None else path(parent)), number]


def positions() -> list[int]:
    """Of each token in its own row."""
    before = {number: sum(NODES[above].tokens for above in path(number)[:-1]) for number in range(len(NODES))}
    found: list[int] = []
    for place, number in enumerate(tokens()):
        found.append(before[number] + place - tokens().index(number))
    return found


def ends() -> list[int]:
    """Of each token, where the subtree ends that it lies above: of its own node and all below, exclusive."""
    below = [
        1 + max(last for last, node in enumerate(tokens()) if number in path(node))
        for number in range(len(NODES))
    ]
    return [below[number] for number in tokens()]


def sees(query: int, key: int) -> bool:
    """The engine's rule of attention."""
    return key <= query < ends()[key]


def box(x: float, y: float, width: float, height: float, colour: str, words: str) -> Iterator[str]:
    yield f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{colour}"/>'
    yield f'<text x="{x + width / 2:g}" y="{y + height / 2 + 5:g}" text-anchor="middle">{escape(words)}</text>'


def text(kind: str, x: float, y: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def tree(language: int, top: float) -> Iterator[str]:
    """The nodes from left to right, by depth, with lines from each to those below."""
    width, height, across = 150, 34, 190
    leaves = [number for number in range(len(NODES)) if all(node.parent != number for node in NODES)]
    middle: dict[int, float] = {}
    for number in sorted(range(len(NODES)), key=depths().__getitem__, reverse=True):
        children = [middle[child] for child, node in enumerate(NODES) if node.parent == number]
        middle[number] = (
            sum(children) / len(children) if children else top + leaves.index(number) * STEP + height / 2
        )
    for number, node in enumerate(NODES):
        x, y = LEFT + depths()[number] * across, middle[number]
        if node.parent is not None:
            start, above = x - across + width, middle[node.parent]
            curve = f"M{start:g} {above:g}C{x - 20:g} {above:g} {x - 20:g} {y:g} {x:g} {y:g}"
            yield f'<path class="line" d="{curve}"/>'
        yield from box(x, y - height / 2, width, height, COLOURS[node.kind], node.name[language])


def strip(top: float) -> Iterator[str]:
    """The tokens of the sequence with their positions."""
    for place, number in enumerate(tokens()):
        yield from box(
            LEFT + place * (CELL + 6),
            top,
            CELL + 2,
            CELL,
            COLOURS[NODES[number].kind],
            str(positions()[place]),
        )


def rows(top: float) -> Iterator[str]:
    """The tokens of each row, shared ones again in each."""
    leaves = [number for number in range(len(NODES)) if all(node.parent != number for node in NODES)]
    for line, leaf in enumerate(leaves):
        shown = [place for place, number in enumerate(tokens()) if number in path(leaf)]
        for column, place in enumerate(shown):
            yield from box(
                LEFT + column * (CELL + 6), top + line * 32, CELL + 2, CELL,
                COLOURS[NODES[tokens()[place]].kind], str(column),
            )  # fmt: skip


def grid(top: float) -> Iterator[str]:
    """Which token sees which, coloured by what is seen."""
    for query in range(len(tokens())):
        for key in range(len(tokens())):
            colour = COLOURS[NODES[tokens()[key]].kind] if sees(query, key) else "none"
            yield (
                f'<rect x="{GRID + key * CELL:g}" y="{top + query * CELL:g}" width="{CELL - 3}" height="{CELL - 3}" '
                f'fill="{colour}" stroke="{GREY}" stroke-width="0.6"/>'
            )


def drawing(language: int) -> str:
    """The whole picture: 0 English, 1 Chinese."""
    strip_top = 48 + 3 * STEP + 44
    rows_top = strip_top + CELL + 44
    parts = [
        text("head", LEFT, 24, HEADS[0][language]),
        text("head", GRID, 24, HEADS[1][language]),
        *tree(language, 48),
        text("note", LEFT, strip_top - 12, STRIP[language]),
        *strip(strip_top),
        text("note", LEFT, rows_top - 12, ROWS[language]),
        *rows(rows_top),
        *grid(44),
    ]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {rows_top + 100:g}" role="img" aria-labelledby="title">',
        f'  <title id="title">{TITLE[language]}</title>',
        "  <!-- Written by docs/engine.py. Colours of middle lightness: readable on a white and a dark page. -->",
        f"  <style>{STYLE}  </style>",
        *(f"  {part}" for part in parts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for language, name in enumerate(("engine.svg", "engine.zh.svg")):
        Path(__file__).with_name(name).write_text(drawing(language), encoding="utf-8")

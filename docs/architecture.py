"""Draw docs/architecture.svg and docs/architecture.zh.svg: `python docs/architecture.py`."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

# What calls the package, and the package's rooms from the highest down; (name, English, Chinese, torch).
RULES = ("Snakefile, rules/", "one shell command per job", "每个作业一条 shell 命令", None)
ROOMS = [
    [("*.py", "commands: flags in, one call, an exit status", "命令：解析参数，调用一次，返回状态码", False)],
    [("stages/", "what each stage decides, in phases", "每个阶段的决策与步骤", False)],
    [
        ("pages/", "what people look at", "给人看的页面", False),
        ("tracking/", "MLflow and kin", "MLflow 等", False),
    ],
    [("training/", "engine, data, trainers; what runs them", "引擎、数据、训练器及其运行", True)],
    [("evaluation/", "asking, protocols, the floor", "提问、评分协议、基线", True)],
    [("configuration/", "settings, checks, plan, what reruns", "设置、检查、计划、重跑依据", False)],
    [("models/", "catalogue, formats, dialogue, loading", "模型目录、格式、对话、加载", True)],
    [("datasets/", "readers, records, splits, pairs, terms", "读取器、记录、划分、偏好对、术语", False)],
    [("base/", "errors, files, paths, the command line", "错误、文件、路径、命令行", False)],
]
# (stage, reads, writes under results/, whether it uses a GPU); what is no path is in both languages.
CHAIN = [
    (
        "download",
        ("hub, local copy or phantoms", "hub、本地副本或模拟图像"),
        "raw/{source}/, models/{version}_{mode}/",
        False,
    ),
    ("convert", "raw/", "data/{run}/{train,validation,test}.jsonl", False),
    ("validate", "data/, models/", "data/{run}/validation.{json,html}", False),
    ("sft", "data/, models/", "sft/{run}/", True),
    ("preferences", "data/, sft/", "preferences/{run}.jsonl", True),
    ("dpo", "preferences/, sft/", "dpo/{run}/", True),
    ("ask", "data/, models/, sft/, dpo/", "answers/{run}/{model}.{variant}.jsonl", True),
    ("evaluate", "data/, answers/", "eval/{run}.json, eval/{run}/", False),
    ("report", ("eval/ and metrics", "eval/ 与各阶段指标"), "report/index.html", False),
]
HEADS = (
    ("The package: imports go down only", "代码包：只向下导入"),
    ("The chain: what each stage reads and writes in results/", "流程：每个阶段在 results/ 下读什么、写什么"),
)
LEGEND = (
    ("CPU, no torch needed", "CPU，不需要 torch"),
    ("torch; a GPU where there is one", "torch；有 GPU 时用 GPU"),
)
WORDS = {"title": ("Rooms of the package and stages of the chain", "代码包的各层与流程的各阶段")}
READS, WRITES = ("reads", "读"), ("writes", "写")

WIDTH, TOP, HEIGHT, GAP = 860, 44, 54, 15
LEFT_WIDTH, RIGHT = 340, 364
BLUE, GREEN, SLATE, GREY = "#2f6fb3", "#2e7d4f", "#5b6570", "#7d8792"
STYLE = f"""
    text {{ font-family: system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC",
      "Microsoft YaHei", sans-serif; fill: #fff }}
    .head {{ font-size: 15px; font-weight: 600; fill: {GREY} }}
    .note {{ font-size: 13px; fill: {GREY} }}
    .name {{ font-size: 15px; font-weight: 600 }}
    .text {{ font-size: 13px }}
    .line {{ fill: none; stroke: {GREY}; stroke-width: 1.6 }}
"""


def box(x: float, y: float, width: float, height: float, torch: bool | None) -> str:
    """Where torch is used, where it is not and, for None, outside the package."""
    fill = {True: GREEN, False: BLUE, None: SLATE}[torch]
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{fill}"/>'


def text(kind: str, x: float, y: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def arrow(x: float, y: float, length: float) -> str:
    return f'<path class="line" d="M{x:g} {y:g}V{y + length:g}" marker-end="url(#tip)"/>'


def rooms(language: int) -> Iterator[str]:
    """The stack of rooms, the rules that call it on top."""
    for level, row in enumerate([[RULES], *ROOMS]):
        y = TOP + level * (HEIGHT + GAP)
        width = (LEFT_WIDTH - GAP * (len(row) - 1)) / len(row)
        for place, (name, *meaning, torch) in enumerate(row):
            x = place * (width + GAP)
            yield box(x, y, width, HEIGHT, torch)
            yield text("name", x + 14, y + 22, name)
            yield text("text", x + 14, y + 42, meaning[language])
            if level:
                yield arrow(x + width / 2, y - GAP + 1, GAP - 3)


def chain(language: int, bottom: float) -> Iterator[str]:
    """The stages, each with what it reads and writes, as high as the stack."""
    step = (bottom - TOP + GAP) / len(CHAIN)
    width, height = WIDTH - RIGHT, step - GAP
    for place, (name, reads, writes, torch) in enumerate(CHAIN):
        y = TOP + place * step
        reads = reads if isinstance(reads, str) else reads[language]
        yield box(RIGHT, y, width, height, torch)
        yield text("name", RIGHT + 14, y + height / 2 + 5, name)
        for label, words, down in ((READS, reads, -5), (WRITES, writes, 17)):
            yield text("text", RIGHT + 126, y + height / 2 + down, label[language])
            yield text("text", RIGHT + 174, y + height / 2 + down, words)
        if place:
            yield arrow(RIGHT + 50, y - GAP + 1, GAP - 3)


def drawing(language: int) -> str:
    """The whole picture: 0 English, 1 Chinese."""
    bottom = TOP + (len(ROOMS) + 1) * (HEIGHT + GAP) - GAP
    height = bottom + 36
    title = WORDS["title"][language]
    parts = [
        text("head", 0, 24, HEADS[0][language]),
        text("head", RIGHT, 24, HEADS[1][language]),
        *rooms(language),
        *chain(language, bottom),
    ]
    for place, (words, torch) in enumerate(zip(LEGEND, (False, True), strict=True)):
        x = place * 200
        parts += [box(x, bottom + 18, 14, 14, torch), text("note", x + 22, bottom + 30, words[language])]
    marker = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{GREY}"/></marker>'
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {WIDTH + 16} {height:g}" role="img" '
        'aria-labelledby="title">',
        f'  <title id="title">{title}</title>',
        "  <!-- Written by docs/architecture.py. Colours of middle lightness: readable on a white and a dark page. -->",
        f"  <defs>{marker}</defs>",
        f"  <style>{STYLE}  </style>",
        *(f"  {part}" for part in parts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for language, name in enumerate(("architecture.svg", "architecture.zh.svg")):
        Path(__file__).with_name(name).write_text(drawing(language), encoding="utf-8")

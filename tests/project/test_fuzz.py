"""Whatever stands in a file or on a command line, it is taken or refused in lines for the user, never a traceback.

The fast suite tries a few mutations of each kind and `make test-slow` over two thousand; all are drawn from seeds, so a
failure names the mutation that brings it back.
"""

import base64
import contextlib
import csv
import io
import json
import logging
import pickle
import random
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mutations import VALUES, altered, altered_json, damaged
from PIL import Image
from pydicom.data import get_testdata_file

from workflow_scripts import config, convert, download, preferences, report, run_experiments, validate
from workflow_scripts.base import cli
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import reading
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.pairs import user_pairs
from workflow_scripts.datasets.phantoms.layouts import WRITERS
from workflow_scripts.datasets.pictures.images import image_size, open_image
from workflow_scripts.datasets.readers import custom
from workflow_scripts.evaluation.protocols import strict
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import convert as convert_stage
from workflow_scripts.stages import download as download_stage
from workflow_scripts.stages import dpo, sft
from workflow_scripts.stages import preferences as preferences_stage
from workflow_scripts.stages import report as report_stage
from workflow_scripts.stages import validate as validate_stage
from workflow_scripts.training.run import prepare

FORMAT = VERSIONS["4.1v"].answer_format("base")
FEW, MANY = 5, 150  # mutations of each file kind


def refused(act: Callable[[], object]) -> str:
    """What a user is told, "" where nothing is wrong; any other exception is the test's failure."""
    try:
        act()
    except UserError as error:
        message = str(error)
        assert message.strip() and all(len(line) < 2000 for line in message.splitlines())
        message.encode()
        return message
    return ""


# Sets as their readers know them


def slake(root: Path) -> None:
    WRITERS["slake"](root, 10, 0)


def rad(root: Path) -> None:
    WRITERS["rad"](root, 10, 0)


def _rad_rows(root: Path) -> list[dict[str, Any]]:
    rad(root)
    path = root / "VQA_RAD Dataset Public.json"
    rows = json.loads(path.read_text())
    path.unlink()
    return rows[:30] + rows[-30:]


def rad_xml(root: Path) -> None:
    body = "".join(
        f"<q>{''.join(f'<{key}>{value}</{key}>' for key, value in row.items())}</q>"
        for row in _rad_rows(root)
    )
    (root / "VQA_RAD Dataset Public.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?><qs>{body}</qs>')


def rad_xlsx(root: Path) -> None:
    names = {"qid": "QID_unique", "phrase_type": "QID_para", "image_name": "IMAGEID", "question": "QUESTION",
             "question_type": "Q_TYPE", "answer": "ANSWER", "answer_type": "A_TYPE"}  # fmt: skip
    book = openpyxl.Workbook()
    book.active.append(list(names.values()))
    for row in _rad_rows(root):
        book.active.append([str(row[key]) for key in names])
    book.save(root / "VQA_RAD Dataset Public.xlsx")


def rad_mevf(root: Path) -> None:
    rows = _rad_rows(root)
    for name, part in (("trainset", rows[:30]), ("testset", rows[30:])):
        (root / f"{name}.json").write_text(json.dumps(part))


def pathvqa_hub(root: Path) -> None:
    from workflow_scripts.datasets.readers.parquet import unpack_images

    WRITERS["pathvqa"](root, 10, 0)
    for table in sorted((root / "data").iterdir()):
        unpack_images(table, root / "images")


def pathvqa_pickle(root: Path) -> None:
    for split in ("train", "val", "test"):
        (root / "images" / split).mkdir(parents=True)
        rows = [
            {
                "answer_type": "other",
                "img_id": f"{split}_{n}",
                "label": {"cells": 1},
                "question_id": n,
                "sent": "What?",
            }
            for n in range(5)
        ]
        for row in rows:
            (root / "images" / split / f"{row['img_id']}.jpg").write_bytes(b"")
        (root / "qas").mkdir(exist_ok=True)
        (root / "qas" / f"{split}_vqa.pkl").write_bytes(pickle.dumps(rows))


# A user's own


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (16, 16), shade).save(buffer, "PNG")
    return buffer.getvalue()


def _rows(root: Path) -> list[dict[str, Any]]:
    for n in range(30):
        (root / f"{n}.png").write_bytes(png(n))
    questions, splits = ("Is it?", "图中有肿块吗？"), ("train", "test")
    return [
        {"image": f"{n}.png", "question": questions[n % 2], "answer": "Yes", "split": splits[n % 2]}
        for n in range(30)
    ]


def own_csv(
    root: Path, name: str = "own.csv", delimiter: str = ",", rows: list[dict[str, Any]] | None = None
) -> None:
    rows = rows or _rows(root)
    with open(root / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def own_jsonl(root: Path) -> None:
    (root / "own.jsonl").write_text("\n".join(map(json.dumps, _rows(root))))


def own_json(root: Path) -> None:
    (root / "own.json").write_text(json.dumps(_rows(root)))


def own_parquet(root: Path) -> None:
    pq.write_table(pa.Table.from_pylist(_rows(root)), root / "own.parquet")


def own_messages(root: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["question"]}]},
                {"role": "assistant", "content": "<think>Look.</think><answer>Yes</answer>"},
            ],
            "images": [row["image"]],
            "split": row["split"],
        }
        for row in _rows(root)
    ]
    (root / "own.json").write_text(json.dumps(rows))


def own_sharegpt(root: Path) -> None:
    rows = [
        {
            "conversations": [{"from": "human", "value": f"<image>{row['question']}"}, {"from": "gpt", "value": "Yes"}],
            "images": row["image"],
            "split": row["split"],
        }
        for row in _rows(root)
    ]  # fmt: skip
    (root / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))


def own_alpaca(root: Path) -> None:
    rows = [
        {"instruction": "<image>", "input": row["question"], "output": "Yes", "history": [["A?", "B"]], **row}
        for row in _rows(root)
    ]
    keys = ("instruction", "input", "output", "history", "image", "split")
    (root / "own.json").write_text(json.dumps([{key: row[key] for key in keys} for row in rows]))


def own_vlmevalkit(root: Path) -> None:
    rows = [
        {
            "index": n,
            "image": base64.b64encode(png(n)).decode() if n < 20 else str(n - 20),
            "question": row["question"],
            "A": "Left",
            "B": "Right",
            "answer": "A",
            "split": row["split"],
        }
        for n, row in enumerate(_rows(root))
    ]
    own_csv(root, "own.tsv", "\t", rows)


SETS: dict[
    str, tuple[Callable[[Path], None], str, str]
] = {  # what makes it, its reader, its files to be damaged
    "slake": (slake, "slake", "*.json KG/*.csv imgs/*/detection.json"),
    "rad": (rad, "rad", "*.json"),
    "rad_xml": (rad_xml, "rad", "*.xml"),
    "rad_xlsx": (rad_xlsx, "rad", "*.xlsx"),
    "rad_mevf": (rad_mevf, "rad", "*.json"),
    "pathvqa_hub": (pathvqa_hub, "pathvqa", "data/*.parquet"),
    "pathvqa_pickle": (pathvqa_pickle, "pathvqa", "qas/*.pkl"),
    "csv": (own_csv, "custom", "own.*"),
    "jsonl": (own_jsonl, "custom", "own.*"),
    "json": (own_json, "custom", "own.*"),
    "parquet": (own_parquet, "custom", "own.*"),
    "messages": (own_messages, "custom", "own.*"),
    "sharegpt": (own_sharegpt, "custom", "own.*"),
    "alpaca": (own_alpaca, "custom", "own.*"),
    "vlmevalkit": (own_vlmevalkit, "custom", "own.*"),
}


def mutated(name: str, data: bytes, draw: random.Random) -> bytes:
    """Another content of a file: damage to its values, where its format is known, or to its bytes."""
    kind = Path(name).suffix
    if draw.random() < 0.3 or not data.strip():
        return damaged(data, draw)
    if kind in (".json", ".jsonl"):
        return altered_json(data, draw)
    if kind == ".pkl":
        return pickle.dumps(altered(pickle.loads(data), draw))
    if kind == ".parquet":
        with contextlib.suppress(Exception):
            rows = altered(pq.read_table(io.BytesIO(data)).to_pylist(), draw)
            out = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows), out)
            return out.getvalue()
    if kind == ".xlsx":
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            chosen = draw.choice(old.namelist())
            for member in old.namelist():
                content = old.read(member)
                new.writestr(member, damaged(content, draw) if member == chosen else content)
        return out.getvalue()
    return damaged(data, draw)


def _converts(name: str, count: int, root: Path) -> Counter[str]:
    """Convert the set `count` times, one of its files damaged each time."""
    make, reader, patterns = SETS[name]
    layout, run = Layout(root), Run("own", "4.1v", "base")
    raw = layout.raw("own")
    raw.mkdir(parents=True)
    make(raw)
    settings = reading.validate(
        {"datasets": {"own": {"reader": reader, "path": "x"}}, "data": {"max_missing_images": 1}}, "test"
    )

    def act() -> None:
        if reader == "custom":
            custom.unpack(raw, {})
        convert_stage.convert(settings, layout, run)

    assert not refused(act)
    whole = {path: path.read_bytes() for pattern in patterns.split() for path in sorted(raw.glob(pattern))}
    outcomes: Counter[str] = Counter()
    for number in range(count):
        draw = random.Random(f"{name} {number}")
        path = draw.choice(list(whole))
        path.write_bytes(mutated(path.name, whole[path], draw))
        shutil.rmtree(layout.data(run), ignore_errors=True)
        try:
            message = refused(act)
        except Exception as error:
            raise AssertionError(f"{name} {number}: {path.name}: {error!r}") from error
        folder = layout.data(run)
        left = [file.name for file in folder.glob("*")] if folder.is_dir() else []
        assert not any(file.startswith(".") for file in left), left
        assert ("summary.json" in left) == (not message), left
        outcomes["refused" if message else "taken"] += 1
        path.write_bytes(whole[path])
    return outcomes


@pytest.mark.parametrize("name", SETS)
def test_a_damaged_set_is_converted_or_refused(name, tmp_path):
    _converts(name, FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_many_damaged_sets_are_converted_or_refused(name, tmp_path):
    outcomes = _converts(name, MANY, tmp_path)
    assert set(outcomes) == {"refused", "taken"}  # else the mutations are all of one kind


# Images


def _images(count: int, root: Path) -> None:
    picture = Image.effect_noise((40, 30), 60)
    files = [root / f"a.{kind}" for kind in ("png", "jpg", "gif", "tif", "bmp", "webp")]
    for path in files:
        picture.save(path)
    for name in ("CT_small.dcm", "examples_jpeg2k.dcm", "SC_rgb_rle.dcm", "examples_ybr_color.dcm"):
        if found := get_testdata_file(name, download=False):
            files.append(Path(shutil.copy(found, root / name)))
    for path in files:
        whole = path.read_bytes()
        for number in range(count):
            draw = random.Random(f"{path.name} {number}")
            # The head of a file says most of what it is.
            head = len(whole) if draw.random() < 0.4 else min(len(whole), 400)
            path.write_bytes(damaged(whole[:head], draw) + whole[head:])
            for read in (image_size, open_image):
                try:
                    refused(partial(read, path))
                except Exception as error:
                    raise AssertionError(f"{path.name} {number}: {error!r}") from error


@pytest.mark.filterwarnings("ignore")  # of Pillow and pydicom, about damage
def test_a_damaged_image_is_shown_or_refused(tmp_path):
    _images(6, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_images_are_shown_or_refused(tmp_path):
    _images(60, tmp_path)


# Records and pairs


def _records(count: int, root: Path) -> None:
    layout, run = Layout(root), Run("own", "4.1v", "base")
    raw = layout.raw("own")
    raw.mkdir(parents=True)
    own_jsonl(raw)
    settings = reading.validate({"datasets": {"own": {"reader": "custom", "path": "x"}}}, "test")
    convert_stage.convert(settings, layout, run)
    path = layout.split(run, "train")
    whole = path.read_bytes()
    for number in range(count):
        draw = random.Random(f"records {number}")
        path.write_bytes(mutated(path.name, whole, draw))
        errors = structure.Problems()

        def examine(errors: structure.Problems = errors) -> None:
            pictures = structure.Pictures(
                layout.data(run), lambda width, height: 1, errors, structure.Problems()
            )
            for row in structure.read(path, "train", errors):
                pictures.of(row)
                structure.dialogue_problem(row.record["messages"], row.record["images"], last="assistant")
            pictures.decode()
            "\n".join(errors.lines()).encode()

        refused(examine)


def _pairs(count: int, root: Path) -> None:
    (root / "a.png").write_bytes(png(1))
    pair = {
        "messages": [{"role": "user", "content": "<image>Is it?"}],
        "images": ["a.png"],
        "chosen": "Yes",
        "rejected": "No",
    }
    whole = "\n".join(
        json.dumps({**pair, "messages": [{"role": "user", "content": f"<image>Is it {n}?"}]})
        for n in range(5)
    )
    path, same = root / "mine.jsonl", strict.same_when_read(FORMAT.read)
    for number in range(count):
        draw = random.Random(f"pairs {number}")
        path.write_bytes(mutated(path.name, whole.encode(), draw))
        refused(lambda: list(user_pairs.read(path, FORMAT.rewrite, same, ())))


def _evaluations(count: int, root: Path) -> None:
    group = {"overall": {"n": 0, "accuracy": None}}
    evaluation = {"run": "slake_4.1v_base", "final_stage": "sft", "data_fingerprint": "x", "model": {}, "ablation": {},
                  "stages": {"sft": group}, "floor": {"question_only": group},
                  "cost": dict.fromkeys(("sft_seconds", "dpo_seconds", "eval_seconds", "examples_per_second"), 1)}  # fmt: skip
    path = root / "eval" / "slake_4.1v_base.json"
    path.parent.mkdir()
    for number in range(count):
        draw = random.Random(f"evaluations {number}")
        path.write_bytes(mutated(path.name, json.dumps(evaluation).encode(), draw))
        refused(partial(report_stage.report, Layout(root)))


@pytest.mark.parametrize("kind", [_records, _pairs, _evaluations])
def test_damaged_results_are_read_or_refused(kind, tmp_path):
    kind(3 * FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [_records, _pairs, _evaluations])
def test_many_damaged_results_are_read_or_refused(kind, tmp_path):
    kind(2 * MANY, tmp_path)


def _prepare(task: Callable[..., Any], *arguments: object) -> None:
    prepare(task(*arguments))


def _trainings(count: int, root: Path) -> None:
    """What sft and dpo do before there is a model: rows, images, their plan, what was done already."""
    layout, run = Layout(root / "results"), Run("own", "4.1v", "base")
    raw = {"datasets": {"own": {"reader": "slake", "embedded": 10}}, "tracking": [],
           "sft": {"gpus": 0, "validation_steps": 1}, "dpo": {"gpus": 0, "validation_steps": 1},
           "models": {"4.1v": {"base": {"embedded": True}}}, "preferences": {"own_answers": False}}  # fmt: skip
    settings = reading.validate(raw, "test")
    download_stage.download_source(settings, layout, "own")
    download_stage.download_model(settings, layout, "4.1v", "base")
    convert_stage.convert(settings, layout, run)
    preferences_stage.preferences(settings, layout, run, layout.root)
    model = layout.model("4.1v", "base")
    damaged_files = {
        sft.task: [layout.split(run, "train"), layout.split(run, "validation")],
        dpo.task: [layout.preferences(run), layout.validation_pairs(run)],
    }
    for number in range(count):
        draw = random.Random(f"trainings {number}")
        task = draw.choice(list(damaged_files))
        path = draw.choice(damaged_files[task])
        whole = path.read_bytes()
        path.write_bytes(mutated(path.name, whole, draw))
        try:
            refused(partial(_prepare, task, settings, layout, run, model))
        except Exception as error:
            raise AssertionError(f"trainings {number}: {path.name}: {error!r}") from error
        path.write_bytes(whole)


def test_a_training_on_damaged_rows_is_prepared_or_refused(tmp_path):
    _trainings(FEW, tmp_path)


@pytest.mark.slow
def test_many_trainings_on_damaged_rows_are_prepared_or_refused(tmp_path):
    _trainings(MANY, tmp_path)


@pytest.mark.slow
def test_many_damaged_runs_are_validated_or_refused(tmp_path):
    """The stage as a whole, with a model's tokenizer: a run's files, its images and the user's pairs."""
    layout, run = Layout(tmp_path / "results"), Run("own", "4.1v", "base")
    pairs = tmp_path / "pairs.jsonl"
    raw = {"datasets": {"own": {"reader": "custom", "path": str(tmp_path / "set")}}, "tracking": [],
           "models": {"4.1v": {"base": {"embedded": True}}}, "preferences": {"files": {"own": [str(pairs)]}}}  # fmt: skip
    settings = reading.validate(raw, "test")
    (tmp_path / "set").mkdir()
    own_jsonl(tmp_path / "set")
    (tmp_path / "set" / "0.png").unlink()  # whose row is dropped
    (tmp_path / "a.png").write_bytes(png(99))
    pair = {"messages": [{"role": "user", "content": "<image>Is it?"}], "images": ["a.png"], "chosen": "Yes"}
    pairs.write_text(json.dumps({**pair, "rejected": "No"}))
    download_stage.download_source(settings, layout, "own")
    download_stage.download_model(settings, layout, "4.1v", "base")
    convert_stage.convert(settings, layout, run)
    act = partial(validate_stage.validate, settings, layout, run)
    damaged_files = [
        pairs,
        *sorted((tmp_path / "set").glob("*.png"))[:3],
        *sorted(layout.data(run).glob("*.json*")),
    ]
    for number in range(30):
        draw = random.Random(f"runs {number}")
        path = draw.choice(damaged_files)
        whole = path.read_bytes()
        path.write_bytes(mutated(path.name, whole, draw))
        try:
            message = refused(act)
        except Exception as error:
            raise AssertionError(f"runs {number}: {path.name}: {error!r}") from error
        assert (layout.data(run) / "validation.json").is_file() == (not message)
        path.write_bytes(whole)


# Configurations and command lines


def _configurations(count: int, root: Path) -> None:
    path, whole = root / "a.yaml", Path("config.yaml").read_bytes()
    plain = yaml.safe_load(whole)
    for number in range(count):
        draw = random.Random(f"configurations {number}")
        if draw.random() < 0.5:
            path.write_bytes(damaged(whole, draw))
        else:
            path.write_text(yaml.dump(altered(plain, draw), allow_unicode=False), encoding="utf-8")
        try:
            refused(partial(reading.load, [path]))
        except Exception as error:
            raise AssertionError(f"configurations {number}: {error!r}") from error


def test_a_damaged_configuration_is_read_or_refused(tmp_path):
    _configurations(3 * FEW, tmp_path)


@pytest.mark.slow
def test_many_damaged_configurations_are_read_or_refused(tmp_path):
    _configurations(3 * MANY, tmp_path)


RUN = ["--dataset", "own", "--model_version", "4.1v", "--mode", "base"]
COMMANDS: list[tuple[Callable[..., int], list[str]]] = [
    (download.main, ["--dataset", "own"]),
    (download.main, ["--dataset", "own", "--verify"]),
    (convert.main, RUN),
    (validate.main, RUN),
    (preferences.main, RUN),
    (report.main, ["--print", "own_4.1v_base"]),
    (report.main, []),
    (config.main, ["--check", "config.yaml"]),
    (run_experiments.main, ["--mode", "evaluate", "--models_dir", "results/sft", "--test_datasets", "own"]),
]


def _command_lines(count: int, root: Path, capsys: pytest.CaptureFixture[str]) -> Counter[int]:
    (root / "config.yaml").write_text(
        "datasets: {own: {reader: slake, embedded: 10}}\ntracking: []\npreferences: {own_answers: false}\n"
    )
    words = [str(value) for value in VALUES if isinstance(value, str | int) and value != "\0"]
    words = [word for word in words if "\0" not in word and word.isprintable()]
    words += [
        "--results",
        "/dev/null",
        "--config",
        "none.yaml",
        "--log_level",
        "--debug=1",
        "-h=",
        "--",
        "-1",
        "results",
    ]
    statuses: Counter[int] = Counter()
    for number in range(count):
        draw = random.Random(f"command lines {number}")
        main, arguments = draw.choice(COMMANDS)
        arguments = [*arguments]
        for _ in range(draw.randrange(3)):
            place = draw.randrange(len(arguments) + 1)
            match draw.randrange(3):
                case 0:
                    arguments[place : place + 1] = []
                case 1:
                    arguments[place : place + 1] = [draw.choice(words)]
                case 2:
                    arguments.insert(place, draw.choice(words))
        try:
            status = cli.run(main, arguments)
        except SystemExit as error:
            status = int(error.code or 0)
        except Exception as error:
            raise AssertionError(f"command lines {number}: {arguments}: {error!r}") from error
        written = capsys.readouterr().err.splitlines()
        told = [line for line in written if line.startswith("error: ")]
        assert "Traceback (most recent call last):" not in written, arguments
        assert len(told) == (status != 0), (arguments, written)
        statuses[status] += 1
    return statuses


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", logging.root.handlers[:])
    return tmp_path


def test_a_wrong_command_line_is_refused(quiet, capsys):
    _command_lines(3 * FEW, quiet, capsys)


@pytest.mark.slow
def test_many_wrong_command_lines_are_refused(quiet, capsys):
    assert set(_command_lines(2 * MANY, quiet, capsys)) == {0, 1, 2}

"""From raw files to records: formats, splits, and every dropped row accounted for."""

import shutil

import pytest

from workflow_scripts import convert, download, files
from workflow_scripts.config import validate
from workflow_scripts.datasets.records import SPLITS
from workflow_scripts.errors import UserError
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.paths import Layout, Run

KEYS = [
    "messages",
    "images",
    "id",
    "source",
    "split",
    "image_id",
    "question",
    "answer",
    "answer_type",
    "question_type",
    "language",
    "modality",
    "organ",
]
EMBEDDED = {
    "datasets": {
        **{name: {"reader": name, "embedded": 20} for name in ("slake", "rad", "pathvqa")},
        "combined": {"members": ["slake", "rad", "pathvqa"]},
    }
}


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("results"))
    settings = validate(EMBEDDED, "test")
    for name in ("slake", "rad", "pathvqa"):
        download.download_source(settings, layout, name)
    return layout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["thinking", "base"])
def test_every_run_converts_all_rows(downloaded, version, mode):
    run = Run("combined", version, mode)
    summary = convert.convert(validate(EMBEDDED, "test"), downloaded, run)
    reader = VERSIONS[version].answer_format(mode)
    images = {}
    for split in SPLITS:
        rows = list(files.read_jsonl(downloaded.split(run, split)))
        assert len(rows) == summary["rows"][split] > 0
        assert {row["source"] for row in rows} == {"slake", "rad", "pathvqa"}
        for row in rows:
            assert list(row) == KEYS and row["split"] == split
            assert reader.read(row["messages"][1]["content"]) == row["answer"]
            assert row["messages"][0]["content"] == "<image>" + row["question"]
            assert (downloaded.data(run) / row["images"][0]).is_file()
        images[split] = {(row["source"], row["image_id"]) for row in rows}
    assert not images["train"] & images["test"] and not images["train"] & images["validation"]
    assert summary["read"] == summary["kept"] == sum(summary["rows"].values())


def test_thoughts_can_be_left_empty(downloaded):
    run = Run("slake", "4.1v", "thinking")
    convert.convert(validate({**EMBEDDED, "data": {"thoughts": "empty"}}, "test"), downloaded, run)
    rows = list(files.read_jsonl(downloaded.split(run, "train")))
    assert all(row["messages"][1]["content"].startswith("<think></think><answer>") for row in rows)


def test_languages_can_be_chosen(downloaded):
    settings = validate(
        {"datasets": {"slake": {"reader": "slake", "embedded": 20, "languages": ["zh"]}}}, "test"
    )
    convert.convert(settings, downloaded, Run("slake", "4.1v", "base"))
    rows = list(files.read_jsonl(downloaded.split(Run("slake", "4.1v", "base"), "train")))
    assert {row["language"] for row in rows} == {"zh"}


def test_answers_can_be_put_in_canonical_terms(downloaded, tmp_path):
    run = Run("slake", "4.1v", "thinking")
    (tmp_path / "mine.yaml").write_text("modalities: {MRI: {zh: [磁振造影]}}", encoding="utf-8")

    def converted(**changes) -> dict[str, dict]:
        convert.convert(validate({**EMBEDDED, **changes}, "test"), downloaded, run)
        return {row["id"]: row for split in SPLITS for row in files.read_jsonl(downloaded.split(run, split))}

    kept = converted()
    reworded = converted(data={"terminology": "canonical"}, terms=[tmp_path / "mine.yaml"])
    reader = VERSIONS[run.model_version].answer_format(run.mode)
    assert kept.keys() == reworded.keys() and not any("raw_answer" in row for row in kept.values())
    for id, row in reworded.items():
        assert row["raw_answer"] == kept[id]["answer"]
        assert reader.read(row["messages"][1]["content"]) == row["answer"]
    changes = {(row["raw_answer"], row["answer"]) for row in reworded.values()}
    assert {("Top left", "Upper Left"), ("核磁共振", "磁振造影"), ("Yes", "Yes"), ("左肺", "左肺")} <= changes


@pytest.fixture
def incomplete(downloaded, tmp_path):
    """A copy of SLAKE without the image of one train and one test row."""
    layout = Layout(tmp_path / "results")
    shutil.copytree(downloaded.raw("slake"), layout.raw("slake"))
    missing = set()
    for split in ("train", "test"):
        first = files.read_json(layout.raw("slake") / f"{split}.json")[0]
        missing.add(first["img_name"].split("/")[0])
        (layout.raw("slake") / "imgs" / first["img_name"]).unlink()
    return layout, missing


def test_missing_images_are_listed_below_the_limit_and_an_error_above_it(incomplete):
    layout, missing = incomplete
    run = Run("slake", "4.1v", "base")
    with pytest.raises(UserError, match=r"have no image file .*more than data\.max_missing_images = 0\.05"):
        convert.convert(validate(EMBEDDED, "test"), layout, run)
    assert not layout.data(run).exists()

    summary = convert.convert(
        validate({**EMBEDDED, "data": {"max_missing_images": 0.5}}, "test"), layout, run
    )
    dropped = list(files.read_jsonl(layout.data(run) / "dropped.jsonl"))
    assert {row["image"].split("/")[1] for row in dropped} == missing
    assert summary["read"] == summary["kept"] + len(dropped)
    assert summary["dropped"] == {"missing image": len(dropped)}


def test_an_empty_split_is_one_clear_line(downloaded, tmp_path):
    layout = Layout(tmp_path / "results")
    shutil.copytree(downloaded.raw("slake"), layout.raw("slake"))
    files.write_json(layout.raw("slake") / "test.json", [])
    run = Run("slake", "4.1v", "base")
    with pytest.raises(UserError, match="slake_4.1v_base: the test split is empty"):
        convert.convert(validate(EMBEDDED, "test"), layout, run)
    assert not layout.data(run).exists()


def test_the_real_files_convert_and_count_what_is_missing(realdata, tmp_path):
    raw = {
        "data": {"max_missing_images": 0.05},
        "datasets": {"slake": {"reader": "slake", "path": str(realdata / "slake/Slake1.0")}},
    }
    layout, run = Layout(tmp_path), Run("slake", "4.5v", "thinking")
    download.download_source(validate(raw, "test"), layout, "slake")
    summary = convert.convert(validate(raw, "test"), layout, run)
    assert summary["read"] == 14028
    assert summary["dropped"] == {"missing image": 607, "empty answer": 1}
    texts = [row["answer"] for split in SPLITS for row in files.read_jsonl(layout.split(run, split))]
    assert "None" in texts and all(isinstance(text, str) and text.strip() for text in texts)

"""From raw files to records: formats, splits, and every dropped row accounted for."""

import shutil
import subprocess
import sys
from collections import Counter
from itertools import chain

import pytest
import yaml
from PIL import Image
from pydicom.data import get_testdata_file

from workflow_scripts import convert as command
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.reading import validate
from workflow_scripts.configuration.settings import UndeclaredKey
from workflow_scripts.datasets import splits
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.mixing import is_copy
from workflow_scripts.datasets.pairs.rules import Answers, rule_pairs
from workflow_scripts.datasets.readers import READERS
from workflow_scripts.datasets.records import SPLITS
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import convert, download
from workflow_scripts.stages.preferences import agree

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
    "yes_no",
    "question_type",
    "language",
    "modality",
    "organ",
    "linked_id",
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
        assert {row["source"] for row in rows if row["linked_id"]} == {"rad"}
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


def test_a_key_that_is_not_declared_for_the_stage_ends_it(downloaded, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**EMBEDDED, "tracking": []}))
    flags = ["--config", str(tmp_path / "config.yaml"), "--results", str(downloaded.root)]
    names = ["--dataset", "slake", "--model_version", "4.1v", "--mode", "base"]
    assert command.main([*flags, *names]) == 0
    monkeypatch.setitem(dependencies.READ_BY["data"], "splits", ())
    with pytest.raises(UndeclaredKey, match=r"^convert reads data\.splits, which is not declared"):
        command.main([*flags, *names])


def test_an_empty_split_is_one_clear_line(downloaded, tmp_path):
    layout = Layout(tmp_path / "results")
    shutil.copytree(downloaded.raw("slake"), layout.raw("slake"))
    files.write_json(layout.raw("slake") / "test.json", [])
    run = Run("slake", "4.1v", "base")
    with pytest.raises(UserError, match="slake_4.1v_base: the test split is empty"):
        convert.convert(validate(EMBEDDED, "test"), layout, run)
    assert not layout.data(run).exists()


@pytest.mark.slow
def test_no_tracker_imports_torch_into_conversion(downloaded, tmp_path):
    settings = {**EMBEDDED, "tracking": ["mlflow", "tensorboard"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    flags = ["--config", str(tmp_path / "config.yaml"), "--results", str(downloaded.root)]
    code = (
        "import sys; from workflow_scripts import convert; status = convert.main(sys.argv[1:]);"
        "print(status, *sorted({'torch', 'transformers', 'tensorboard', 'mlflow'} & set(sys.modules)))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        *flags,
        "--dataset",
        "rad",
        "--model_version",
        "4.1v",
        "--mode",
        "base",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "0 mlflow tensorboard\n", answer.stderr


@pytest.fixture
def own_set(tmp_path):
    """A folder of DICOM and other images with a table of questions, as a user may have it."""
    folder = tmp_path / "own"
    (folder / "scans").mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (40, 30), (20 * number, 0, 0)).save(folder / "scans" / f"{number}.png")
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder / "scans" / "ct.dcm")
    (folder / "not-mine.bin").write_bytes(b"x")
    rows = [("file", "q", "a"), *((f"scans/{number}.png", "Is it\tred?", "yes") for number in range(12))]
    rows += [("scans/ct.dcm", "What is it?", "CT"), ("scans/ct.dcm", "这是什么?", "")]
    (folder / "own.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("as_file", [True, False])
def test_a_users_own_set_is_a_data_set_and_a_member(as_file, own_set, downloaded, tmp_path):
    own = {"reader": "custom", "columns": {"image": "file", "question": "q", "answer": "a"}}
    own["path"] = str(own_set / "own.csv" if as_file else own_set)
    settings = validate(
        {"datasets": {**EMBEDDED["datasets"], "own": own, "combined": {"members": ["slake", "own"]}}}, "test"
    )
    layout = Layout(tmp_path / "results")
    download.download_source(settings, layout, "own")
    layout.raw("slake").symlink_to(downloaded.raw("slake"))
    listed = files.read_json(layout.raw("own") / "manifest.json")["files"]
    assert {"own.csv", "scans/0.png", "scans/ct.dcm", "rendered/scans/ct.dcm.png"} <= set(listed)
    assert ("not-mine.bin" in listed) != as_file

    run = Run("own", "4.1v", "thinking")
    summary = convert.convert(settings, layout, run)
    assert (summary["read"], summary["dropped"], summary["tidied"]) == (14, {"empty answer": 1}, 12)
    rows = {split: list(files.read_jsonl(layout.split(run, split))) for split in SPLITS}
    assert {split: len(found) for split, found in rows.items()} == {"train": 11, "validation": 1, "test": 1}
    for row in chain.from_iterable(rows.values()):
        assert list(row) == KEYS and row["source"] == "own" and row["id"].startswith("own-own-")
        with Image.open(layout.data(run) / row["images"][0]) as image:  # as other programs open it
            assert image.format == "PNG"
    tidied = list(files.read_jsonl(layout.data(run) / "tidied.jsonl"))
    assert {(change["field"], change["stated"], change["written"]) for change in tidied} == {
        ("question", "Is it\tred?", "Is it red?")
    }

    both = Run("combined", "4.1v", "thinking")
    convert.convert(settings, layout, both)
    sources = {row["source"] for split in SPLITS for row in files.read_jsonl(layout.split(both, split))}
    assert sources == {"slake", "own"}


def test_an_error_in_a_users_table_or_image_names_the_users_file(own_set, tmp_path, caplog):
    own = {"reader": "custom", "path": str(own_set), "columns": {"image": "file", "question": "q"}}
    layout = Layout(tmp_path / "results")
    with pytest.raises(UserError, match=rf"^{own_set}/own\.csv: row 1: no column 'answer'"):
        download.download_source(validate({"datasets": {"own": own}}, "test"), layout, "own")
    own["columns"]["answer"] = "a"
    (own_set / "scans" / "ct.dcm").write_bytes((own_set / "scans" / "ct.dcm").read_bytes()[:2000])
    assert not layout.raw("own").exists()
    # A picture stays for validation, which lists all bad ones at once.
    download.download_source(validate({"datasets": {"own": own}}, "test"), layout, "own")
    assert f"{own_set}/scans/ct.dcm: not a readable image" in caplog.text


def test_images_that_lie_apart_are_linked_to_the_set(own_set, tmp_path):
    (tmp_path / "pictures").mkdir()
    shutil.move(own_set / "scans", tmp_path / "pictures")
    own = {"reader": "custom", "columns": {"image": "file", "question": "q", "answer": "a"}}
    own |= {"path": str(own_set / "own.csv"), "images": str(tmp_path / "pictures")}
    settings = validate({"datasets": {"own": own}}, "test")
    layout, run = Layout(tmp_path / "results"), Run("own", "4.1v", "base")
    download.download_source(settings, layout, "own")
    assert convert.convert(settings, layout, run)["kept"] == 13
    (own_set / "images").mkdir()
    own["path"] = str(own_set)
    with pytest.raises(UserError, match=r"datasets\.own\.images: the set has a folder images/ already"):
        download.download_source(validate({"datasets": {"own": own}}, "test"), layout, "own")


def test_dialogues_of_several_turns_and_images_become_records(tmp_path):
    for name in "abc":
        Image.new("RGB", (8, 8), ("red", "green", "blue")["abc".index(name)]).save(tmp_path / f"{name}.png")
    told = [("user", "<image>Where is &lt;?"), ("assistant", "<think>Look.</think><answer>Left</answer>"),
            ("user", "And in <image>?"), ("assistant", "Right")]  # fmt: skip
    messages = [{"role": role, "content": content} for role, content in told]
    rows = [
        {"messages": messages, "images": ["a.png", "b.png"], "split": "train"},
        {
            "image": "b.png",
            "question": "Is it green?",
            "answer": "Yes",
            "rationale": "It is.",
            "split": "test",
        },
        {"image": ["c.png", "a.png"], "question": "Same?", "answer": "No", "split": "validation"},
    ]
    files.write_jsonl(tmp_path / "own.jsonl", rows)
    settings = validate(
        {"datasets": {"own": {"reader": "custom", "path": str(tmp_path / "own.jsonl")}}}, "test"
    )
    layout, run = Layout(tmp_path / "results"), Run("own", "4.1v", "thinking")
    download.download_source(settings, layout, "own")
    convert.convert(settings, layout, run)
    train, validation, test = (next(files.read_jsonl(layout.split(run, split))) for split in SPLITS)
    assert [message["content"] for message in train["messages"]] == [
        "<image>Where is &amp;lt;?", "<think>Look.</think><answer>Left</answer>",
        "And in <image>?", "<think></think><answer>Right</answer>",
    ]  # fmt: skip
    assert len(train["images"]) == 2 and (train["question"], train["answer"]) == ("And in ?", "Right")
    assert validation["messages"][0]["content"] == "<image><image>Same?" and len(validation["images"]) == 2
    assert test["messages"][1]["content"] == "<think>It is.</think><answer>Yes</answer>"
    for row in (train, validation, test):
        assert structure.dialogue_problem(row["messages"], row["images"], last="assistant") is None


def test_annotations_and_knowledge_lie_beside_the_records(downloaded):
    run = Run("combined", "4.1v", "base")
    convert.convert(validate(EMBEDDED, "test"), downloaded, run)
    folder = downloaded.data(run)
    annotations = {row["id"]: row for row in files.read_jsonl(folder / "annotations.jsonl")}
    records = [row for split in SPLITS for row in files.read_jsonl(downloaded.split(run, split))]
    assert set(annotations) == {row["id"] for row in records}
    for row in records:
        told = annotations[row["id"]]
        if row["source"] == "slake":
            assert (folder / told["mask"]).is_file() and told["triple"]
            stated = files.read_json((folder / row["images"][0]).parent / "detection.json")
            assert told["boxes"] == [
                {"label": label, "box": box} for item in stated for label, box in item.items()
            ]
        else:
            assert told["mask"] == "" and "boxes" not in told
    facts = list(files.read_jsonl(folder / "knowledge.jsonl"))
    assert {fact["source"] for fact in facts} == {"slake"} and {fact["language"] for fact in facts} == {
        "en",
        "zh",
    }


def convert_with(downloaded, tmp_path, dataset, data=(), mixture=()):
    """Convert into a folder of its own; returns the summary, the rows of each split, and what was dropped."""
    layout = Layout(tmp_path / "results")
    layout.root.mkdir(exist_ok=True)
    if not (layout.root / "raw").exists():
        (layout.root / "raw").symlink_to(downloaded.root / "raw")
    sets = EMBEDDED["datasets"] | {"combined": {**EMBEDDED["datasets"]["combined"], **dict(mixture)}}
    settings, run = validate({"datasets": sets, "data": dict(data)}, "test"), Run(dataset, "4.1v", "base")
    summary = convert.convert(settings, layout, run)
    rows = {split: list(files.read_jsonl(layout.split(run, split))) for split in SPLITS}
    return summary, rows, list(files.read_jsonl(layout.data(run) / "dropped.jsonl"))


def test_weights_mix_the_train_rows_only(downloaded, tmp_path):
    _, plain, _ = convert_with(downloaded, tmp_path, "combined")
    weights = {"slake": 1, "rad": 2, "pathvqa": 1}
    summary, mixed, dropped = convert_with(downloaded, tmp_path, "combined", mixture={"weights": weights})
    total = len(plain["train"])
    counts = Counter(row["source"] for row in mixed["train"])
    assert counts.total() == total
    assert all(abs(counts[name] - total * weight / 4) < 1 for name, weight in weights.items())
    assert mixed["validation"] == plain["validation"] and mixed["test"] == plain["test"]

    ids = [row["id"] for row in mixed["train"]]
    assert len(set(ids)) == len(ids)
    copies = [id for id in ids if is_copy(id)]
    assert summary["copies"] == len(copies) > 0
    assert summary["dropped"] == {convert.NOT_DRAWN: len(dropped)} and dropped
    assert summary["read"] + summary["copies"] == summary["kept"] + len(dropped)
    written = {id.split("#")[0] for id in ids}
    assert written | {row["id"] for row in dropped} == {row["id"] for row in plain["train"]}


def test_a_mixture_depends_on_the_seed_alone(downloaded, tmp_path):
    mixture = {"temperature": 3}
    first = convert_with(downloaded, tmp_path, "combined", mixture=mixture)
    assert convert_with(downloaded, tmp_path, "combined", mixture=mixture) == first


@pytest.fixture(scope="module")
def official_slake(realdata, tmp_path_factory):
    return real_slake(realdata, tmp_path_factory.mktemp("official"), max_missing_images=0.05)


def test_the_real_files_convert_and_count_what_is_missing(official_slake):
    summary, rows, _, folder = official_slake
    assert summary["read"] == 14028
    assert summary["dropped"] == {"missing image": 607, "empty answer": 1}
    texts = [row["answer"] for split in SPLITS for row in rows[split]]
    assert "None" in texts and all(isinstance(text, str) and text.strip() for text in texts)
    tidied = list(files.read_jsonl(folder / "tidied.jsonl"))
    assert {(change["stated"], change["written"]) for change in tidied} == {
        ("Transverse  Plane", "Transverse Plane")
    }
    assert 0 < len(tidied) == summary["tidied"] <= 91
    assert sum(1 for _ in files.read_jsonl(folder / "knowledge.jsonl")) == 2 * 2216 + 307 + 281 + 2 * 103


def test_official_splits_are_the_default_and_unchanged(realdata, official_slake):
    _, rows, dropped, _ = official_slake
    official = {row.id: row.split for row in READERS["slake"](realdata / "slake/Slake1.0")}
    assert {row["id"]: split for split in SPLITS for row in rows[split]} | {
        row["id"]: row["split"] for row in dropped
    } == official
    assert images(rows["train"]) & images(rows["test"])


def real_slake(realdata, folder, **data):
    """Convert the real SLAKE; returns the summary, the rows of each split, what was dropped, and where all of it is."""
    raw = {
        "data": data,
        "datasets": {"slake": {"reader": "slake", "path": str(realdata / "slake/Slake1.0")}},
    }
    layout, run = Layout(folder), Run("slake", "4.5v", "thinking")
    download.download_source(validate(raw, "test"), layout, "slake")
    summary = convert.convert(validate(raw, "test"), layout, run)
    rows = {split: list(files.read_jsonl(layout.split(run, split))) for split in SPLITS}
    folder = layout.data(run)
    return summary, rows, list(files.read_jsonl(folder / "dropped.jsonl")), folder


def images(rows):
    return {row["image_id"] for row in rows}


def test_image_disjoint_slake_shares_no_image_between_splits_of_either_language(
    realdata, official_slake, tmp_path
):
    _, official, _, _ = official_slake
    stated = READERS["slake"](realdata / "slake/Slake1.0")
    tested = {row.image_id for row in stated if row.split == "test"}  # with those whose file is missing here
    unseen_by_test = images(official["validation"]) - tested
    assert (len(unseen_by_test), len(unseen_by_test & images(official["train"]))) == (148, 130)
    summary, rows, dropped, _ = real_slake(realdata, tmp_path, splits="image_disjoint")
    assert rows["test"] == official["test"]
    assert rows["validation"] == [row for row in official["validation"] if row["image_id"] not in tested]
    validated = images(rows["validation"])
    assert images(rows["train"]) == images(official["train"]) - tested - validated
    assert summary["read"] == summary["kept"] + len(dropped) == 14028
    of_reason = {reason: [row for row in dropped if row["reason"] == reason] for reason in convert.REASONS}
    removed = of_reason[splits.IN_A_TEST_SET]
    assert {row["split"] for row in removed} == {"train", "validation"}
    assert {row["image"].split("/")[1] for row in removed} <= tested
    removed = of_reason[splits.IN_A_VALIDATION_SET]
    assert {row["split"] for row in removed} == {"train"}
    assert {row["image"].split("/")[1] for row in removed} <= validated
    assert {reason: len(found) for reason, found in of_reason.items() if found} == summary["dropped"]


def test_the_test_images_of_a_language_that_is_left_out_count_too(realdata, tmp_path):
    raw = {
        "data": {"splits": "image_disjoint"},
        "datasets": {
            "slake": {"reader": "slake", "path": str(realdata / "slake/Slake1.0"), "languages": ["en"]}
        },
    }
    layout, run = Layout(tmp_path), Run("slake", "4.5v", "base")
    download.download_source(validate(raw, "test"), layout, "slake")
    convert.convert(validate(raw, "test"), layout, run)
    chinese = {
        row["img_name"].split("/")[0]
        for row in files.read_json(layout.raw("slake") / "test.json")
        if row["q_lang"] == "zh"
    }
    assert not chinese & images(files.read_jsonl(layout.split(run, "train")))


def test_near_duplicates_of_test_images_are_removed_if_asked(downloaded, tmp_path):
    layout = Layout(tmp_path / "results")
    shutil.copytree(downloaded.raw("slake"), layout.raw("slake"))
    first = {split: files.read_json(layout.raw("slake") / f"{split}.json")[0] for split in ("train", "test")}
    one, other = (layout.raw("slake") / "imgs" / first[split]["img_name"] for split in ("train", "test"))
    one.unlink()  # a link to the set as it was downloaded
    Image.open(other).resize((97, 103)).save(one, "JPEG")
    data = {"splits": "image_disjoint", "near_duplicates": "remove"}
    convert.convert(validate({**EMBEDDED, "data": data}, "test"), layout, Run("slake", "4.1v", "base"))
    dropped = list(files.read_jsonl(layout.data(Run("slake", "4.1v", "base")) / "dropped.jsonl"))
    assert {row["reason"] for row in dropped} == {splits.LIKE_A_TEST_IMAGE}
    assert first["train"]["img_name"] in {row["image"].removeprefix("imgs/") for row in dropped}


def test_near_duplicates_of_validation_images_are_removed_from_train_if_asked(downloaded, tmp_path):
    """Where early stopping and the final stage are chosen by them."""
    layout, run = Layout(tmp_path / "results"), Run("slake", "4.1v", "base")
    shutil.copytree(downloaded.raw("slake"), layout.raw("slake"))
    one, other = (
        layout.raw("slake") / "imgs" / files.read_json(layout.raw("slake") / name)[0]["img_name"]
        for name in ("train.json", "validate.json")
    )
    one.unlink()  # a link to the set as it was downloaded
    Image.open(other).resize((97, 103)).save(one, "JPEG")
    data = {"splits": "image_disjoint", "near_duplicates": "remove"}
    convert.convert(validate({**EMBEDDED, "data": data}, "test"), layout, run)
    dropped = list(files.read_jsonl(layout.data(run) / "dropped.jsonl"))
    assert {(row["reason"], row["split"]) for row in dropped} == {(splits.LIKE_A_VALIDATION_IMAGE, "train")}
    assert one.parent.name in {row["image"].split("/")[1] for row in dropped}


def test_image_disjoint_keeps_patients_and_copies_of_a_file_in_one_split(tmp_path):
    stated = [
        ("tested.png", "test", "P1"), ("tested-2.png", "train", "P1"), ("tested-3.png", "validation", "P1"),
        ("held.png", "validation", "P2"), ("held-2.png", "train", "P2"),
        ("of-test.png", "train", "P3"), ("of-validation.png", "train", "P4"), ("own.png", "train", "P5"),
    ]  # fmt: skip
    for number, (image, _, _) in enumerate(stated):
        Image.new("L", (8, 8), 20 * number).save(tmp_path / image)
    shutil.copy(tmp_path / "tested.png", tmp_path / "of-test.png")
    shutil.copy(tmp_path / "held.png", tmp_path / "of-validation.png")
    rows = [
        {"image": image, "question": "Is it?", "answer": "Yes", "split": split, "patient": patient}
        for image, split, patient in stated
    ]
    files.write_jsonl(tmp_path / "own.jsonl", rows)
    own = {"reader": "custom", "path": str(tmp_path / "own.jsonl")}
    settings = validate({"datasets": {"own": own}, "data": {"splits": "image_disjoint"}}, "test")
    layout, run = Layout(tmp_path / "results"), Run("own", "4.1v", "base")
    download.download_source(settings, layout, "own")
    convert.convert(settings, layout, run)
    kept = {split: images(files.read_jsonl(layout.split(run, split))) for split in SPLITS}
    assert kept == {"train": {"own"}, "validation": {"held"}, "test": {"tested"}}
    dropped = {row["image"]: row["reason"] for row in files.read_jsonl(layout.data(run) / "dropped.jsonl")}
    assert dropped == {
        "of-test.png": splits.IN_A_TEST_SET,
        "tested-2.png": splits.OF_A_TESTED_PATIENT,
        "tested-3.png": splits.OF_A_TESTED_PATIENT,
        "of-validation.png": splits.IN_A_VALIDATION_SET,
        "held-2.png": splits.OF_A_VALIDATED_PATIENT,
    }


@pytest.mark.parametrize("seed", range(4))  # of which some move the patient of the copy to validation
def test_a_copy_of_a_test_image_does_not_move_to_validation_with_its_patient(tmp_path, seed):
    stated = [
        ("tested.png", "test", "P1"),
        ("copy.png", "train", "P2"),
        ("of-its-patient.png", "train", "P2"),
    ]
    stated += [("other.png", "train", "P3")]
    for number, (image, _, _) in enumerate(stated):
        Image.new("L", (8, 8), 20 * number).save(tmp_path / image)
    shutil.copy(tmp_path / "tested.png", tmp_path / "copy.png")
    rows = [
        {"image": image, "question": "Is it?", "answer": "Yes", "split": split, "patient": patient}
        for image, split, patient in stated
    ]
    files.write_jsonl(tmp_path / "own.jsonl", rows)
    own = {"reader": "custom", "path": str(tmp_path / "own.jsonl")}
    data = {"splits": "image_disjoint", "validation_share": 0.5}
    settings = validate({"datasets": {"own": own}, "data": data, "seed": seed}, "test")
    layout, run = Layout(tmp_path / "results"), Run("own", "4.1v", "base")
    download.download_source(settings, layout, "own")
    convert.convert(settings, layout, run)
    kept = {split: images(files.read_jsonl(layout.split(run, split))) for split in SPLITS}
    assert kept["test"] == {"tested"}
    assert kept["train"] | kept["validation"] == {"of-its-patient", "other"}


def test_a_patient_is_kept_together_and_its_images_are_apart(tmp_path):
    rows = []
    for number in range(60):
        patient, image = number // 6, f"1.2.840.{number}.png"
        Image.new("RGB", (8, 8), (number, 4 * patient, 0)).save(tmp_path / image)
        answer = ("Yes", "No")[number % 2]
        rows.append({"image": image, "question": "Is it?", "answer": answer, "patient": f"P{patient}"})
    files.write_jsonl(tmp_path / "own.jsonl", rows)
    own = {"reader": "custom", "path": str(tmp_path / "own.jsonl")}
    settings, layout, run = (
        validate({"datasets": {"own": own}}, "test"), Layout(tmp_path / "results"), Run("own", "4.1v", "base")
    )  # fmt: skip
    download.download_source(settings, layout, "own")
    convert.convert(settings, layout, run)
    records = {split: list(files.read_jsonl(layout.split(run, split))) for split in SPLITS}
    of_row = {row["id"]: row["patient"] for row in files.read_jsonl(layout.data(run) / "annotations.jsonl")}
    patients = {split: {of_row[row["id"]] for row in found} for split, found in records.items()}
    assert sum(map(len, patients.values())) == 10 and all(patients.values())
    assert {row["image_id"] for found in records.values() for row in found} == {
        f"1.2.840.{n}" for n in range(60)
    }
    train = records["train"]
    assert len(list(rule_pairs(train, Answers(train), ["polarity"], 42, agree))) == len(train)


LIMITED = {**EMBEDDED, "limit": 12, "data": {"splits": "official"}}


def test_a_limited_run_has_rows_of_each_split_set_and_kind_and_is_the_same_again(downloaded, tmp_path):
    run = Run("combined", "4.1v", "base")
    layout = Layout(tmp_path / "limited_12", shared=downloaded.root)
    summary = convert.convert(validate(LIMITED, "test"), layout, run)
    first = {split: files.sha256(layout.split(run, split)) for split in SPLITS}
    for split in SPLITS:
        rows = list(files.read_jsonl(layout.split(run, split)))
        assert max(Counter(row["source"] for row in rows).values()) <= 12
        kinds = Counter((row["source"], row["answer_type"]) for row in rows)
        assert len(kinds) == 6 and len({row["image_id"] for row in rows}) >= 6
        assert {row["language"] for row in rows if row["source"] == "slake"} == {"en", "zh"}
        assert all((layout.data(run) / row["images"][0]).is_file() for row in rows)
    dropped = Counter(row["reason"] for row in files.read_jsonl(layout.data(run) / "dropped.jsonl"))
    assert summary["limit"] == 12
    assert dropped == summary["dropped"] == {convert.OVER_LIMIT: summary["read"] - summary["kept"]}
    convert.convert(validate(LIMITED, "test"), layout, run)
    assert first == {split: files.sha256(layout.split(run, split)) for split in SPLITS}
    convert.convert(validate({**LIMITED, "seed": 43}, "test"), layout, run)
    assert first["train"] != files.sha256(layout.split(run, "train"))


def test_the_rows_of_a_limited_run_are_mixed_as_those_of_a_whole_one(downloaded, tmp_path):
    run, layout = Run("combined", "4.1v", "base"), Layout(tmp_path / "limited_12", shared=downloaded.root)
    mixed = {**EMBEDDED["datasets"]["combined"], "weights": {"slake": 2, "rad": 1, "pathvqa": 1}}
    settings = validate({**LIMITED, "datasets": {**EMBEDDED["datasets"], "combined": mixed}}, "test")
    convert.convert(settings, layout, run)
    rows = Counter(row["source"] for row in files.read_jsonl(layout.split(run, "train")))
    assert rows["slake"] == pytest.approx(2 * rows["rad"], abs=1)


def test_a_limited_run_lies_apart_and_takes_what_is_fetched_already(downloaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**EMBEDDED, "tracking": []}))
    shutil.copytree(downloaded.raw("rad"), tmp_path / "results/raw/rad")
    flags = ["--dataset", "rad", "--model_version", "4.1v", "--mode", "base"]
    assert command.main([*flags, "--limit", "8"]) == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["limited_8", "raw"]
    place = tmp_path / "results/limited_8/data/rad_4.1v_base"
    assert sum(1 for _ in files.read_jsonl(place / "train.jsonl")) == 8
    with pytest.raises(SystemExit):
        command.main([*flags, "--limit", "3"])

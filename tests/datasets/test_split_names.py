"""Names of files and folders that state a split, alone or among other words, and those that may."""

import csv

import pytest

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.readers import custom, split_names

ROW = {"question": "Is it a CT?", "answer": "Yes"}


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train trainset rad_train train-00000-of-00001 TRAIN VQARadTrain train2014 training_data 训练集",
        ),
        ("validation", "val valset validation dev my.valid.v2 DevSet rad-val val_qa 验证集 驗證"),
        ("test", "test testset rad_test test-2 testing RadTest testdata slake_test_zh test1 测试集 測試"),
        (
            "",
            "a set labels latest_labels strain valve device interval brain testis contest attest 图像 best protest",
        ),
    ],
)
def test_names_state_a_split(split, names):
    assert {name: split_names.split(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    "name",
    [
        "trainval",
        "train_test_split",
        "radtest",
        "radtrain",
        "eval",
        "testcases",
        "held_out",
        "训练测试",
        "development",
        "评估集",
    ],
)
def test_names_that_may_mean_several_are_refused(name):
    with pytest.raises(ValueError, match="does not tell one split"):
        split_names.split(name)


def write(root, **tables):
    for number, (place, images) in enumerate(tables.items()):
        path = root / f"{place.replace('__', '/')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["image", *ROW])
            writer.writeheader()
            writer.writerows({"image": image, **ROW} for image in images or [f"{number}.png"])


def splits(root):
    return {row.id.removeprefix("custom-"): row.split for row in custom.read(root)}


@pytest.mark.parametrize(
    "names",
    [
        ("trainset", "testset"), ("rad_train", "rad_test"), ("train__labels", "test__labels"),
        ("data__rad_train__a", "data__rad_test__a"), ("trainset__qa_train", "testset__qa_test"),
    ],
)  # fmt: skip
def test_tables_and_folders_named_after_splits_have_these(names, tmp_path):
    write(tmp_path, **dict.fromkeys(names))
    found = splits(tmp_path)
    assert list(found.values()) in (["train", "test"], ["test", "train"]) and len(found) == 2
    assert all(("test" in name) == (split == "test") for name, split in found.items())


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            ["trainval", "test"],
            r"trainval\.csv: 'trainval' does not tell one split \(trainval\); give the rows a col",
        ),
        (["train", "held"], r"held\.csv: 'held' does not tell one split"),
        (["train", "more"], r"more\.csv: row 1: no split, but other tables .*give the rows a column 'split'"),
        (["train__test"], r"test\.csv: table and folder name two splits"),
        (["trainval__a"], "trainval: 'trainval' does not tell one split"),
    ],
)
def test_ambiguous_names_are_refused_with_what_to_do(names, complaint, tmp_path):
    write(tmp_path, **dict.fromkeys(names))
    with pytest.raises(UserError, match=complaint):
        splits(tmp_path)


def test_images_and_their_folders_state_the_split_where_no_table_does(tmp_path):
    stated = {
        "images/train/1.png": "train", "train_images\\2.png": "train", "/somewhere/test/3.png": "test",
        "/somewhere/val/4.png": "validation", "teststrips/5.png": "train", "pvqa/test_0001.jpg": "test",
        "dev-7.png": "validation", "testis_8.png": "train", "latest9.png": "train",
    }  # fmt: skip
    write(tmp_path, a=list(stated))
    assert list(splits(tmp_path).values()) == list(stated.values())


@pytest.mark.parametrize("image", ["train/test/1.png", "val/test_1.png"])
def test_an_image_of_two_splits_is_refused(image, tmp_path):
    write(tmp_path, a=[image])
    with pytest.raises(
        UserError, match=r"a\.csv: row 1: .* names two splits; give the rows a column 'split'"
    ):
        splits(tmp_path)

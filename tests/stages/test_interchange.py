"""The files as other tools load them: LLaMA-Factory 0.9.5, ms-swift 4.6.0 and the installed TRL.

The demands of the first two, which are not installed here, are those that their own loaders make of a row.
"""

import pytest
from datasets import Image, List, load_dataset
from trl.data_utils import is_conversational, maybe_apply_chat_template, maybe_extract_prompt
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import validate
from workflow_scripts.datasets.records import SPLITS, last_turn
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue, conversation
from workflow_scripts.stages import convert, download, preferences

RUN = Run("slake", "4.1v", "thinking")
TURNS = [
    {"role": "user", "content": "<image>Which organ is it?"},
    {"role": "assistant", "content": "Lung"},
    {"role": "user", "content": "Which side?"},
]


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Layout:
    """A converted set with preference pairs, one of them the user's own and of several turns."""
    layout = Layout(tmp_path_factory.mktemp("results"))
    source = {"datasets": {"slake": {"reader": "slake", "embedded": 12}}}
    download.download_source(validate(source, "test"), layout, "slake")
    convert.convert(validate(source, "test"), layout, RUN)
    train = next(files.read_jsonl(layout.split(RUN, "train")))
    mine = {"messages": TURNS, "images": train["images"], "chosen": "Left", "rejected": "Right"}
    files.write_jsonl(layout.data(RUN) / "mine.jsonl", [mine])
    own = {"own_answers": False, "files": {"slake": [layout.data(RUN) / "mine.jsonl"]}}
    preferences.preferences(validate({**source, "preferences": own}, "test"), layout, RUN, layout.root)
    return layout


@pytest.fixture(scope="module")
def pairs(layout) -> list[dict]:
    return list(files.read_jsonl(layout.preferences(RUN)))


@pytest.fixture(scope="module")
def processor():
    return standins.processor(VERSIONS[RUN.model_version])


def test_a_dialogue_of_several_turns_is_a_question_after_a_history():
    assert last_turn(TURNS) == {"prompt": "Which side?", "history": [["<image>Which organ is it?", "Lung"]]}


def test_llama_factory_finds_its_files(layout):
    folder = layout.data(RUN)
    info = files.read_json(folder / "dataset_info.json")
    assert set(info) == {f"{RUN}_{name}" for name in (*SPLITS, "preferences")}
    assert all((folder / entry["file_name"]).is_file() for entry in info.values())
    # In one stage LLaMA-Factory takes either rankings or none.
    assert [name for name, entry in info.items() if entry.get("ranking")] == [f"{RUN}_preferences"]


@pytest.mark.parametrize("split", SPLITS)
def test_llama_factory_reads_the_splits_as_sharegpt(layout, split):
    entry = files.read_json(layout.data(RUN) / "dataset_info.json")[f"{RUN}_{split}"]
    columns, tags = entry["columns"], entry["tags"]
    assert entry["formatting"] == "sharegpt"
    for row in files.read_jsonl(layout.split(RUN, split)):
        messages = row[columns["messages"]]
        roles = [message[tags["role_tag"]] for message in messages]
        assert roles == [tags["user_tag"], tags["assistant_tag"]] * (len(messages) // 2)
        texts = [message[tags["content_tag"]] for message in messages]
        assert sum(text.count("<image>") for text in texts) == len(row[columns["images"]])
        assert all(
            (layout.data(RUN) / image).is_file() for image in row[columns["images"]]
        )  # its dataset_dir


def test_llama_factory_reads_the_pairs_as_alpaca_rankings(layout, pairs):
    entry = files.read_json(layout.data(RUN) / "dataset_info.json")[f"{RUN}_preferences"]
    columns = entry["columns"]
    assert entry["formatting"] == "alpaca" and "query" not in columns
    for row in pairs:
        turns = [text for pair in row[columns["history"]] for text in pair] + [row[columns["prompt"]]]
        assert turns == [message["content"] for message in row["messages"]]
        assert isinstance(row[columns["chosen"]], str) and isinstance(row[columns["rejected"]], str)
        assert sum(text.count("<image>") for text in turns) == len(row[columns["images"]])
        assert all((layout.preferences(RUN).parent / image).is_file() for image in row[columns["images"]])
    assert [row["origin"] for row in pairs if row["history"]] == ["user"]


def test_ms_swift_reads_the_pairs_with_four_columns_renamed(pairs):
    """`--columns '{"messages": "turns", "prompt": "query", "chosen": "response", "rejected": "rejected_response"}'`"""
    names = {"messages": "turns", "prompt": "query", "chosen": "response", "rejected": "rejected_response"}
    for row in pairs:
        renamed = {names.get(key, key): value for key, value in row.items()}
        assert len(renamed) == len(row)
        # With any of these it would look for dialogues or instructions, not for a query and its response.
        assert not {"messages", "conversation", "conversations", "instruction"} & set(renamed)
        assert all(len(pair) == 2 for pair in renamed["history"])
        assert renamed["rejected_response"] not in ("", renamed["response"])


def test_trl_sees_the_pairs_as_a_standard_preference_set(pairs):
    for row in pairs:
        pair = {key: row[key] for key in ("prompt", "chosen", "rejected")}
        assert not is_conversational(pair)
        assert maybe_extract_prompt(pair) == maybe_apply_chat_template(pair, None) == pair


def test_trl_applies_the_chat_template_to_every_conversation(layout, pairs, processor):
    dialogue = Dialogue(processor, RUN.model_version, RUN.mode)
    stop = VERSIONS[RUN.model_version].stop_token
    for record in files.read_jsonl(layout.split(RUN, "train")):
        row = conversation(record)
        assert set(row) == {"prompt", "completion"} and is_conversational(row)
        (turn,) = dialogue.turns(record)
        rendered = maybe_apply_chat_template(row, processor)
        assert rendered == {"prompt": turn.prompt, "completion": turn.completion.removesuffix(stop)}
    for pair in pairs:
        row = conversation(pair)
        assert set(row) == {"prompt", "chosen", "rejected"} and is_conversational(row)
        rendered = maybe_apply_chat_template(row, processor)
        assert rendered["prompt"] == dialogue.prompt(pair["messages"])
        for key in ("chosen", "rejected"):
            assert rendered[key] + stop == dialogue.completion(pair["messages"], pair[key])


@pytest.mark.parametrize(
    ("name", "collator"),
    [
        ("train", lambda processor: DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)),
        ("preferences", DataCollatorForVisionPreference),
    ],
)  # fmt: skip
def test_trl_makes_batches_of_a_loaded_file(layout, processor, monkeypatch, tmp_path, name, collator):
    path = layout.preferences(RUN) if name == "preferences" else layout.split(RUN, name)
    monkeypatch.chdir(path.parent)  # image paths are relative to the file
    loaded = load_dataset("json", data_files=path.name, split="train", cache_dir=str(tmp_path))
    kept = set(conversation(loaded[0])) | {"images"}
    loaded = loaded.map(conversation)
    loaded = loaded.remove_columns([column for column in loaded.column_names if column not in kept])
    assert len(loaded) == sum(1 for _ in files.read_jsonl(path))
    rows = list(loaded.cast_column("images", List(Image())).select([0, len(loaded) - 1]))
    batch = collator(processor)(rows)
    assert batch["input_ids"].shape[0] == (4 if name == "preferences" else 2)
    image_token = processor.tokenizer.convert_tokens_to_ids("<|image|>")
    assert (batch["input_ids"] == image_token).sum() * 4 == batch["pixel_values"].shape[0]  # 2 x 2 patches

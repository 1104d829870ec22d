"""The configuration: every error at once, and config.yaml and its schema as the model writes them."""

from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts import config, files
from workflow_scripts.config import Config, stage_settings
from workflow_scripts.errors import UserError

ROOT = Path(__file__).parents[1]


def test_config_yaml_is_what_the_defaults_write():
    assert (ROOT / "config.yaml").read_text() == config.to_yaml(Config()), (
        "run python -m workflow_scripts.config --write"
    )
    assert (ROOT / "config.schema.json").read_text() == config.to_schema()


def test_config_yaml_reads_back_as_the_defaults():
    assert config.load([ROOT / "config.yaml"]) == Config()


def test_config_yaml_fits_its_schema():
    schema = files.read_json(ROOT / "config.schema.json")
    jsonschema.validate(yaml.safe_load((ROOT / "config.yaml").read_text()), schema)


@pytest.mark.parametrize("profile", ["demo"])
def test_profiles_are_valid(profile):
    config.load([ROOT / "config.yaml", ROOT / "profiles" / profile / "config.yaml"])


WRONG = """
seed: -1
datsets: {}
sft: {learning_rate: 1e-5, metod: lora, method: lorra, lora: {rnk: 3}}
datasets:
  my_set: {reader: slak}
  combo: {members: [slake, slak], wieghts: {}}
  open: {reader: rad, repository: a/b}
  mixed: {members: [slake, rad], weights: {slake: 0, rat: 2}, temperature: 2}
data: {near_duplicates: remove}
models: {4.1w: {thinking: {repo: x}}}
tracking: [mlfow]
"""


def test_every_error_is_listed_with_path_value_and_nearest_name(tmp_path):
    (tmp_path / "wrong.yaml").write_text(WRONG)
    with pytest.raises(UserError) as error:
        config.load([ROOT / "config.yaml", tmp_path / "wrong.yaml"])
    message = str(error.value)
    for expected in (
        "seed: -1",
        "datsets: 'datsets' is unknown",
        "did you mean 'datasets'?",
        "sft.metod: 'metod' is unknown",
        "did you mean 'method'?",
        "sft.method: 'lorra' is unknown (known: lora, full); did you mean 'lora'?",
        "sft.lora.rnk",
        "did you mean 'rank'?",
        "datasets.my_set: a name has letters",
        "datasets.my_set.reader: 'slak' is unknown",
        "datasets.combo.members: 'slak' is unknown",
        "datasets.open.revision: missing",
        "datasets.combo.wieghts: 'wieghts' is unknown (known: members, weights, temperature)",
        "datasets.mixed.weights.slake: 0",
        "datasets.mixed.weights: 'rat' is unknown (known: slake, rad); did you mean 'rad'?",
        "datasets.mixed.weights.rad: missing",
        "datasets.mixed: has both weights and temperature",
        "data.near_duplicates: remove needs data.splits: image_disjoint",
        "models.4.1w: '4.1w' is unknown",
        "models.4.1w.thinking.repo",
        "tracking.0: 'mlfow' is unknown",
    ):
        assert expected in message
    assert "1e-5" not in message and "1e-05" not in message


def test_exponents_are_numbers_for_our_reader_and_for_snakemakes(tmp_path):
    (tmp_path / "a.yaml").write_text("sft: {learning_rate: 2e-5}\ndpo: {learning_rate: 1E-6}")
    assert config.load([tmp_path / "a.yaml"]).sft.learning_rate == 2e-5
    assert config.validate({"dpo": {"learning_rate": "1e-6"}}, "here").dpo.learning_rate == 1e-6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: [", "not valid YAML"),
        ("- a", "expected keys and values"),
        ("seed: 1\nseed: 2", "stands twice"),
    ],
)
def test_unreadable_files_are_named(tmp_path, text, expected):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=expected) as error:
        config.load([tmp_path / "a.yaml"])
    assert str(tmp_path / "a.yaml") in str(error.value)
    with pytest.raises(UserError, match="no such configuration file"):
        config.load([tmp_path / "b.yaml"])


names = st.sampled_from([*Config.model_fields, "sft.lora", "x", "datasets"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(names, values, max_size=4))
def test_anything_is_either_valid_or_a_user_error(raw):
    try:
        config.validate(raw, "here")
    except UserError as error:
        assert "error(s) in the configuration" in str(error)


def test_what_does_not_change_a_result_does_not_rerun_a_stage():
    settings = Config()
    before = stage_settings(settings, "sft")
    settings.sft.gpus, settings.sft.log_steps, settings.dpo.beta, settings.tracking = 4, 1, 0.5, []
    assert stage_settings(settings, "sft") == before
    settings.sft.lora.rank = 8
    assert stage_settings(settings, "sft") != before


def test_how_a_combination_is_mixed_is_its_own_setting():
    raw = {"members": ["slake", "rad"], "temperature": 2}
    settings = config.validate(
        {"datasets": {**config.Config().model_dump()["datasets"], "mixed": raw}}, "here"
    )
    assert config.mixture_settings(settings, "mixed") == {"weights": {}, "temperature": 2}
    assert config.mixture_settings(settings, "slake") == {}

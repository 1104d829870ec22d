"""The configuration: every error at once, and config.yaml and its schema as the model writes them."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies, reading, runs, text
from workflow_scripts.configuration.dependencies import stage_settings
from workflow_scripts.configuration.pass_through import DpoTrainerKey, PeftKey, TrainerKey
from workflow_scripts.configuration.settings import Config, Loss, Sft
from workflow_scripts.training import arguments, model
from workflow_scripts.training.data.batching import Load
from workflow_scripts.training.data.schedule import Schedule

ROOT = Path(__file__).parents[2]


def test_config_yaml_is_what_the_defaults_write():
    assert (ROOT / "config.yaml").read_text() == text.to_yaml(Config()), (
        "run python -m workflow_scripts.config --write"
    )
    assert (ROOT / "config.schema.json").read_text() == text.to_schema()


def test_config_yaml_reads_back_as_the_defaults():
    assert reading.load([ROOT / "config.yaml"]) == Config()


def test_config_yaml_fits_its_schema():
    schema = files.read_json(ROOT / "config.schema.json")
    jsonschema.validate(yaml.safe_load((ROOT / "config.yaml").read_text()), schema)


@pytest.mark.parametrize("profile", ["demo"])
def test_profiles_are_valid(profile):
    reading.load([ROOT / "config.yaml", ROOT / "profiles" / profile / "config.yaml"])


WRONG = """
seed: -1
datsets: {}
sft: {learning_rate: 1e-5, metod: lora, method: lorra, lora: {rnk: 3}}
datasets:
  my_set: {reader: slak}
  combo: {members: [slake, slak], wieghts: {}}
  twice: {members: [slake, slake]}
  open: {reader: rad, repository: a/b}
  mixed: {members: [slake, rad], weights: {slake: 0, rat: 2}, temperature: 2}
  mine: {reader: custom, path: x, columns: {imag: file}}
  drawn: {reader: custom, embedded: 20}
  drawn2: {reader: custom, path: table.csv, embedded: 20}
  named: {reader: rad, path: x, columns: {image: file}}
data: {near_duplicates: remove}
models: {4.1w: {thinking: {repo: x}}, 4.1v: {thinkng: {embedded: true}}}
tracking: [mlfow]
dpo: {loss: {sigmoyd: 1.0}, gpus: 3, batch_size: 16}
preferences: {files: {slke: [mine.jsonl]}, rules: [swap, swap]}
"""


def test_every_error_is_listed_with_path_value_and_nearest_name(tmp_path):
    (tmp_path / "wrong.yaml").write_text(WRONG)
    with pytest.raises(UserError) as error:
        reading.load([ROOT / "config.yaml", tmp_path / "wrong.yaml"])
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
        "datasets.mine.columns",
        "'imag' is unknown (known: image, question,",
        "datasets.drawn: a custom set has no phantoms",
        "datasets.drawn2.embedded: there are no phantoms in the layout of custom",
        "datasets.named.columns: is for the reader custom only",
        "datasets.combo.wieghts: 'wieghts' is unknown (known: members, weights, temperature)",
        "datasets.mixed.weights.slake: 0",
        "datasets.mixed.weights: 'rat' is unknown (known: slake, rad); did you mean 'rad'?",
        "datasets.mixed.weights.rad: missing",
        "datasets.mixed: has both weights and temperature",
        "data.near_duplicates: remove needs data.splits: image_disjoint",
        "models.4.1w: '4.1w' is unknown",
        "models.4.1w.thinking.repo",
        "models.4.1v.thinkng: 'thinkng' is unknown (known: thinking, base); did you mean 'thinking'?",
        "tracking.0: 'mlfow' is unknown",
        "dpo.loss.sigmoyd: 'sigmoyd' is unknown (known: sigmoid, hinge, ",
        "did you mean 'sigmoid'?",
        "dpo.batch_size: 16: not a multiple of 3 GPU(s)",
        "datasets.twice.members: ['slake', 'slake']: 'slake' stands more than once",
        "preferences.files.slke: 'slke' is unknown",
        "preferences.rules: ['swap', 'swap']: 'swap' stands more than once",
    ):
        assert expected in message, expected
    assert "[key]" not in message
    assert "1e-5" not in message and "1e-05" not in message


def test_wrong_terms_are_found_before_any_job(tmp_path):
    (tmp_path / "terms.yaml").write_text("organs: {Hepar: {en: [Liver]}}")
    (tmp_path / "a.yaml").write_text(f"seed: 1\nterms: [{tmp_path / 'terms.yaml'}]")
    with pytest.raises(
        UserError, match=r"a\.yaml: 1 error.*\n  terms: .*terms\.yaml: organs\.Hepar: 'Liver'"
    ):
        reading.load([tmp_path / "a.yaml"])


def test_exponents_are_numbers_for_our_reader_and_for_snakemakes(tmp_path):
    (tmp_path / "a.yaml").write_text("sft: {learning_rate: 2e-5}\ndpo: {learning_rate: 1E-6}")
    assert reading.load([tmp_path / "a.yaml"]).sft.learning_rate == 2e-5
    assert reading.validate({"dpo": {"learning_rate": "1e-6"}}, "here").dpo.learning_rate == 1e-6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: [", "not valid YAML"),
        ("- a", "expected keys and values"),
        ("seed: 1\nseed: 2", "stands twice"),
        ("seed: " + 3000 * "[", "nested too deeply"),
        ("seed: 2026-13-45", "not valid YAML"),
        ('seed: "\\ud800"', "not valid YAML .*surrogates not allowed"),
        ("sft: &sft {lora: *sft}", "nested too deeply|unknown"),
        ("sft: {epochs: true}", "sft.epochs: True: a number is expected, not yes or no"),
        ("sft: {epochs: .inf}", "sft.epochs: inf: input should be a finite number"),
        ("dpo: {beta: .nan}", "dpo.beta: nan: input should be a finite number"),
        ("seed: yes", "seed: True: a number is expected"),
        (
            "datasets: {all: {members: [slake, rad], weights: {slake: on, rad: 1}}}",
            "weights.slake: True: a number",
        ),
    ],
)
def test_unreadable_files_are_named(tmp_path, text, expected):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=expected) as error:
        reading.load([tmp_path / "a.yaml"])
    assert str(tmp_path / "a.yaml") in str(error.value)
    with pytest.raises(UserError, match="b.yaml: no such file"):
        reading.load([tmp_path / "b.yaml"])


names = st.sampled_from([*Config.model_fields, "sft.lora", "x", "datasets"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(names, values, max_size=4))
def test_anything_is_either_valid_or_a_user_error(raw):
    try:
        reading.validate(raw, "here")
    except UserError as error:
        assert "error(s) in the configuration" in str(error)


def test_what_does_not_change_a_result_does_not_rerun_a_stage():
    settings = Config()
    before = stage_settings(settings, "sft")
    settings.sft.gpus, settings.sft.log_steps, settings.dpo.beta, settings.tracking = 4, 1, 0.5, []
    settings.sft.nodes, settings.sft.strategy = 2, "zero3"
    assert stage_settings(settings, "sft") == before
    settings.sft.lora.rank = 8
    assert stage_settings(settings, "sft") != before


@pytest.mark.parametrize("section", ["datasets", "models", "dpo.loss"])
def test_a_section_that_says_nothing_is_an_error(section):
    raw: object = {}
    for key in reversed(section.split(".")):
        raw = {key: raw}
    with pytest.raises(UserError, match=rf"{section}: {{}}: dictionary should have at least 1 item"):
        reading.validate(raw, "here")


def test_an_answer_can_follow_a_thought_of_its_budget():
    raw = {"evaluation": {"max_new_tokens": 64, "thought_budget": 32}}
    assert reading.validate(raw, "here").evaluation.thought_budget == 32
    raw["evaluation"]["thought_budget"] = 64
    with pytest.raises(UserError, match="evaluation.thought_budget: 64: no answer can follow"):
        reading.validate(raw, "here")


def test_a_batch_is_split_over_the_gpus_of_all_nodes():
    raw = {"sft": {"batch_size": 16, "gpus": 4, "nodes": 4}}
    assert reading.validate(raw, "here").sft.nodes == 4
    with pytest.raises(UserError, match=r"sft.batch_size: 16: not a multiple of 12 GPU\(s\)"):
        reading.validate({"sft": {**raw["sft"], "nodes": 3}}, "here")


@pytest.mark.parametrize(
    "uri", ["https://me:secret@host/x", "postgresql://me:p@secret@host/db", "https://secret@host"]
)
def test_credentials_in_the_tracking_uri_are_refused_and_not_repeated(uri):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as error:
        reading.validate({"tracking_uri": uri}, "here")
    assert "secret" not in str(error.value) and "tracking_uri" in str(error.value)


def test_the_losses_are_those_that_trl_computes():
    from trl import DPOTrainer

    source = inspect.getsource(DPOTrainer)
    computed = set(re.findall(r'if loss_type == "(\w+)"', source))
    assert '"exo_pair" in self.loss_types and self.label_smoothing == 0.0' in source  # refused without it
    assert set(get_args(Loss)) == computed


def test_how_a_combination_is_mixed_is_its_own_setting():
    raw = {"members": ["slake", "rad"], "temperature": 2}
    settings = reading.validate({"datasets": {**Config().model_dump()["datasets"], "mixed": raw}}, "here")
    assert dependencies.mixture_settings(settings, "mixed") == {"weights": {}, "temperature": 2}
    assert dependencies.mixture_settings(settings, "slake") == {}


@pytest.mark.parametrize(
    ("stage", "own", "expected"),
    [
        ("sft", {}, 1e-4),
        ("sft", {"method": "full"}, 1e-5),
        ("dpo", {"method": "lora"}, 1e-5),
        ("dpo", {"method": "full"}, 1e-6),
        ("dpo", {"method": "full", "learning_rate": 3e-7}, 3e-7),
    ],
)
def test_the_learning_rate_follows_the_method_unless_it_is_configured(stage, own, expected):
    rate = getattr(reading.validate({stage: own}, "here"), stage).rate
    assert rate.value == expected and (rate.source == "configured") == ("learning_rate" in own)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"trainer": {"max_grad_nrm": 1}}, "did you mean 'max_grad_norm'?"),
        ({"trainer": {"label_smoothing": 0.1}}, "sft.trainer.label_smoothing: 'label_smoothing' is unknown"),
        ({"trainer": {"packing": True}}, "sft.trainer.packing: 'packing' is unknown"),
        ({"lora": {"peft": {"use_rslra": True}}}, "did you mean 'use_rslora'?"),
        ({"lora": {"peft": {"init_lora_weights": "pissa"}}}, "pissa changes the base's weights"),
    ],
)
def test_a_further_key_that_nobody_knows_is_an_error_with_the_nearest(own, said):
    with pytest.raises(UserError, match=re.escape(said)):
        reading.validate({"sft": own}, "here")


@pytest.mark.parametrize("loss", ["robust", "exo_pair"])
def test_losses_that_need_label_smoothing_are_refused_without(loss):
    with pytest.raises(UserError, match=f"dpo.trainer: .*loss {loss} needs a label_smoothing"):
        reading.validate({"dpo": {"loss": {loss: 1.0}}}, "here")
    own = {"loss": {loss: 1.0}, "trainer": {"label_smoothing": 0.1}}
    assert reading.validate({"dpo": own}, "here").dpo.trainer == {"label_smoothing": 0.1}


def test_further_keys_are_those_of_trl_and_peft_and_none_of_ours():
    from peft import LoraConfig
    from trl import DPOConfig, SFTConfig

    for keys, theirs in ((TrainerKey, SFTConfig), (DpoTrainerKey, DPOConfig), (PeftKey, LoraConfig)):
        assert set(get_args(keys)) <= {field.name for field in dataclasses.fields(theirs) if field.init}
    start = model.start(Path("model"), Sft(gpus=0))
    schedule = Schedule(1, [[0]], 1, [[0]], [], [Load(1)], [1], Load(1))
    ours = arguments.shared(Sft(gpus=0, validation_steps=1), start, Path("x"), 1, schedule)
    assert set(get_args(DpoTrainerKey)) & set(ours) == {"lr_scheduler_type"}  # ours is the default


WRONG_RUNS = """
runs:
  - {dataset: [slake, slak], model_version: 4.1w, sft: {metod: lora}}
  - {mode: base, dpo: {gpus: 3}, evaluatoin: {gpus: 0}}
"""


def test_every_error_of_the_runs_is_listed_with_its_entry(tmp_path):
    (tmp_path / "wrong.yaml").write_text(WRONG_RUNS)
    with pytest.raises(UserError, match=r"1 error.*\n  runs\.1\.evaluatoin: .*did you mean 'evaluation'\?$"):
        reading.load([tmp_path / "wrong.yaml"])
    (tmp_path / "wrong.yaml").write_text(WRONG_RUNS.replace("evaluatoin", "evaluation"))
    with pytest.raises(UserError, match="4 error") as error:
        reading.load([tmp_path / "wrong.yaml"])
    for expected in (
        "runs.0.dataset: 'slak' is unknown",
        "runs.0.model_version: '4.1w' is unknown (known: 4.1v, 4.5v, 4.6v-flash, 4.6v); did you mean '4.1v'?",
        "runs.0.sft.metod: 'metod' is unknown",
        "runs.1.dpo.batch_size: 32: not a multiple of 3 GPU(s)",
    ):
        assert expected in str(error.value), expected


def test_settings_of_several_entries_must_fit_each_other():
    entries = [{"sft": {"batch_size": 12}}, {"model_version": "4.5v", "sft": {"gpus": 8}}]
    with pytest.raises(
        UserError, match=r"1 error.*\n  runs\.1\.sft\.batch_size: 12: not a multiple of 8 GPU"
    ):
        reading.validate({"runs": entries}, "here")


def test_an_entry_that_no_run_belongs_to_is_an_error():
    models = {"4.1v": {"base": {"embedded": True}}}
    with pytest.raises(UserError, match=r"runs\.0: no run has these names"):
        reading.validate({"models": models, "runs": [{"mode": "thinking"}]}, "here")


def test_an_overlay_removes_a_set_or_a_key_by_null(tmp_path):
    (tmp_path / "mine.yaml").write_text("datasets: {rad: null}\nsft: {epochs: null}\ndpo: null\n")
    both = [ROOT / "config.yaml", tmp_path / "mine.yaml"]
    with pytest.raises(UserError, match=r"1 error.*\n  datasets\.combined\.members: 'rad' is unknown"):
        reading.load(both)
    with open(tmp_path / "mine.yaml", "a") as file:
        file.write("models: {4.5v: {thinking: null}}\n")
    (tmp_path / "changed.yaml").write_text("datasets: {combined: {members: [slake, pathvqa]}}")
    found = reading.load([*both, tmp_path / "changed.yaml"])
    assert list(found.datasets) == ["slake", "pathvqa", "combined"]
    assert list(found.models["4.5v"]) == ["base"]
    assert found.sft.epochs == 3 and found.dpo == Config().dpo
    (tmp_path / "changed.yaml").write_text("datasets: {combined: null}")
    assert list(reading.load([*both, tmp_path / "changed.yaml"]).datasets) == ["slake", "pathvqa"]


def test_the_copy_for_the_jobs_has_the_runs_as_they_were(tmp_path):
    entry = {
        "dataset": "slake",
        "model_version": ["4.5v"],
        "sft": {"lora": {"rank": 8}, "learning_rate": None},
    }
    settings = reading.validate({"runs": [entry], "sft": {"learning_rate": 1e-3}}, "here")
    copy = reading.load([text.write_copy(settings, Layout(tmp_path))])
    assert copy == settings
    own = runs.settings_of(copy, Run("slake", "4.5v", "base")).sft
    assert (own.lora.rank, own.lora.alpha, own.learning_rate) == (8, 128, None)

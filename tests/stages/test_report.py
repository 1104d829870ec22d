"""The report: every evaluation that is there, links that lead somewhere, and the table of one run."""

import re

import pytest

from workflow_scripts import report as command
from workflow_scripts.base import files, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.evaluation import protocols
from workflow_scripts.stages import report

FULL = Run("slake", "4.1v", "thinking")
BARE = Run("rad", "4.5v", "base")


@pytest.fixture
def layout(tmp_path):
    """Results of one run with all that belongs to it, and of one of which the evaluation alone is left."""
    layout = Layout(tmp_path / "results")
    for run in (FULL, BARE):
        files.write_json(layout.evaluation(run), evaluation(run))
    files.write_json(layout.root / "eval" / "models" / "summary.json", {"another": "file"})
    files.write_json(layout.trained("sft", FULL) / "metrics.json", training())
    files.write_json(layout.trained("dpo", FULL) / "metrics.json", training())
    files.write_json(layout.data(FULL) / "validation.json", {"counts": {"test": {"closed": 1, "open": 0}}})
    files.write_text(layout.data(FULL) / "validation.html", "data")
    files.write_text(layout.evaluation_page(FULL), "page")
    return layout


def evaluation(run):
    row = {"gold": "yes", "answer": "Yes", "answer_type": "closed", "truncated": False}
    scores = protocols.breakdown([{**row, "source": run.dataset, "language": "en"}])
    return {
        "run": str(run),
        "final_stage": "dpo",
        "data_fingerprint": "0123456789abcdef",
        "model": {"version": run.model_version, "sft": {"method": "lora"}},
        "stages": dict.fromkeys(("untrained", "sft", "dpo"), scores),
        "floor": {"question_only": scores},
        "ablation": {},
        "cost": {"sft_seconds": 1, "dpo_seconds": 1, "eval_seconds": 1, "examples_per_second": 1},
    }


def training():
    return {
        "method": "lora",
        "base_model": "tiny",
        "train_rows": 10,
        "steps": 2,
        "seconds": 3.0,
        "examples_per_second": 5.0,
        "final_loss": 1.0,
        "curve": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}],
    }


def test_every_evaluation_is_shown_with_links_that_lead_somewhere(layout):
    shown = {run["run"]: run for run in report.report(layout)}
    assert list(shown) == [str(BARE), str(FULL)]
    assert all(shown[str(FULL)][part] for part in ("sft", "dpo", "validation"))
    assert not any(shown[str(BARE)][part] for part in ("sft", "dpo", "validation"))
    page = layout.report()
    links = re.findall(r'href="([^#"]+)"', page.read_text("utf-8"))
    assert {(page.parent / link).resolve() for link in links} == {
        layout.evaluation_page(FULL).resolve(),
        (layout.data(FULL) / "validation.html").resolve(),
        layout.evaluation(FULL).resolve(),
        layout.evaluation(BARE).resolve(),
    }


def test_results_of_another_version_are_marked_on_the_page_and_in_print(layout, monkeypatch):
    now = {**versions.RESULTS}
    files.write_json(layout.evaluation(FULL), {**evaluation(FULL), "versions": now})
    files.write_json(layout.evaluation(BARE), {**evaluation(BARE), "versions": now})
    report.report(layout)
    page = layout.report().read_text("utf-8")
    assert "†" not in page and f"sft {now['sft']}, preferences" in page
    assert "another version" not in report.printed(Config(), layout, [str(BARE)])

    monkeypatch.setitem(versions.RESULTS, "sft", now["sft"] + 1)  # as a change of the code does
    raised = {**now, "sft": now["sft"] + 1}
    files.write_json(layout.evaluation(FULL), {**evaluation(FULL), "versions": raised})
    report.report(layout)
    page = layout.report().read_text("utf-8")
    assert f"{BARE}</a> †" in page and f"{FULL}</a></th>" in page
    assert f"{BARE}: sft {now['sft']} (now {raised['sft']})" in page
    assert report.printed(Config(), layout, [str(BARE)]).count(f"sft {now['sft']} (now") == 1


def test_results_from_before_versions_are_marked(layout):
    report.report(layout)
    assert "sft of no version (now" in layout.report().read_text("utf-8")


def test_the_model_is_said_in_words(layout):
    report.report(layout)
    page = layout.report().read_text("utf-8")
    assert "<dd>version 4.1v</dd>" in page and "{" not in page.split("</style>")[1]


def test_the_page_is_the_same_when_written_again(layout):
    report.report(layout)
    first = layout.report().read_bytes()
    report.report(layout)
    assert layout.report().read_bytes() == first


def test_no_results_at_all_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="no results yet; run `make demo`"):
        report.report(Layout(tmp_path))


def test_one_run_is_printed_with_the_commands_that_show_more(layout):
    text = report.printed(Config(), layout, [str(FULL)])
    assert "after DPO" in text and "100.0" in text
    assert f"make open, or open {layout.report()}" in text
    assert (
        f"make mlflow, or mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///{layout.root}/mlflow.db"
        in text
    )


def test_what_is_not_recorded_by_mlflow_or_lies_on_a_server_is_said_so(layout):
    quiet = Config(tracking=[])
    assert "mlflow" not in report.printed(quiet, layout, [str(FULL)]).lower()
    remote = Config(tracking_uri="https://mlflow.example.org")
    assert report.printed(remote, layout, [str(FULL)]).endswith("MLflow: https://mlflow.example.org")


def test_the_credentials_of_a_server_are_not_printed(layout, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org/x")
    printed = report.printed(Config(), layout, [str(FULL)])
    assert printed.endswith("MLflow: https://mlflow.example.org/x") and "secret" not in printed


@pytest.mark.parametrize("foreign", [[], {}, {"run": "slake_4.1v_base"}])
def test_a_file_that_is_no_evaluation_is_named(layout, foreign):
    files.write_json(layout.root / "eval" / "notes.json", foreign)
    with pytest.raises(UserError, match=r"eval/notes\.json: not an evaluation .*move it"):
        report.report(layout)
    with pytest.raises(UserError, match=r"eval/notes\.json: not an evaluation"):
        report.printed(Config(), layout, ["notes"])


def test_a_run_without_results_is_named(layout):
    with pytest.raises(UserError, match=r"slake_4.1v_base.json: no such file; `snakemake "):
        report.printed(Config(), layout, ["slake_4.1v_base"])


def test_the_command_writes_or_prints(layout, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    flags = ["--config", str(tmp_path / "config.yaml"), "--results", str(layout.root)]
    assert command.main(flags) == 0 and layout.report().is_file()
    assert not capsys.readouterr().out
    assert command.main([*flags, "--print", str(BARE)]) == 0
    assert capsys.readouterr().out.startswith(str(BARE))

"""Each command that writes under results/ ends before it touches what another command writes."""

import os

import pytest

from workflow_scripts.base import locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.stages import (
    ask,
    convert,
    download,
    dpo,
    evaluate,
    evaluate_model,
    preferences,
    run_experiments,
    sft,
    validate,
)

RUN = Run("slake", "4.1v", "base")
MODEL = ("4.1v", "base")
SETTINGS = Config.model_validate(
    {
        "datasets": {"slake": {"reader": "slake", "embedded": 20}},
        "models": {"4.1v": {"base": {"embedded": True}}},
        "tracking": [],
    }
)


def model_evaluation(layout: Layout) -> None:
    path = layout.trained("sft", RUN)
    evaluate_model.stage(SETTINGS, layout, path, *MODEL, [], layout.model_evaluation(path), "ours")


def experiments(layout: Layout) -> None:
    (layout.trained("sft", RUN) / "config.json").touch()
    folder = layout.root / "sft"
    run_experiments.evaluate(SETTINGS, layout, folder, ["slake"], layout.model_evaluation(folder))


COMMANDS = {
    "raw/slake": lambda layout: download.fetch(SETTINGS, layout, "slake", None),
    "models/4.1v_base": lambda layout: download.fetch(SETTINGS, layout, None, MODEL),
    f"data/{RUN}": lambda layout: convert.stage(SETTINGS, layout, RUN),
    f"data/{RUN}/": lambda layout: validate.stage(SETTINGS, layout, RUN),
    f"sft/{RUN}": lambda layout: sft.stage(SETTINGS, layout, RUN, layout.model(*MODEL)),
    f"preferences/{RUN}.jsonl": lambda layout: preferences.stage(SETTINGS, layout, RUN, layout.root),
    f"dpo/{RUN}": lambda layout: dpo.stage(SETTINGS, layout, RUN, layout.trained("sft", RUN)),
    f"answers/{RUN}/sft.blank.jsonl": lambda layout: ask.stage(SETTINGS, layout, RUN, "sft", "blank"),
    f"eval/{RUN}.json": lambda layout: evaluate.stage(SETTINGS, layout, RUN),
    f"eval/models/sft/{RUN}.json": model_evaluation,
    "eval/models/sft.json": experiments,
}


@pytest.mark.parametrize("output", COMMANDS)
def test_what_another_command_writes_is_left_alone(tmp_path, output):
    layout = Layout(tmp_path)
    for folder in (layout.data(RUN), layout.trained("sft", RUN), layout.model(*MODEL), layout.raw("slake")):
        folder.mkdir(parents=True)
        (folder / "validation.json").touch()
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    lock = locks.take(locks.lock_of(tmp_path / output))
    with pytest.raises(UserError, match=f"{output.rstrip('/')}: another command writes it .*{os.getpid()}"):
        COMMANDS[output](layout)
    lock.release()
    left = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != "config.json")
    assert left == before


def test_the_lock_is_gone_with_the_command(tmp_path):
    layout = Layout(tmp_path)
    download.fetch(SETTINGS, layout, "slake", None)
    convert.stage(SETTINGS, layout, RUN)
    assert not list(tmp_path.rglob("*.lock"))

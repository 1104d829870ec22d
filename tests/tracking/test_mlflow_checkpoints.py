"""Each checkpoint that is on the disk is a logged model with its validation, and none is that has gone."""

import json
import shutil

import pytest

from workflow_scripts import tracking
from workflow_scripts.base import files
from workflow_scripts.base.errors import Terminated
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import journal, mlflow_models
from workflow_scripts.tracking.experiment import EXPERIMENT
from workflow_scripts.training import checkpoints

RUN = Run("slake", "4.1v", "thinking")


@pytest.fixture
def folder(layout):
    return layout.checkpoints("sft", RUN)


@pytest.fixture
def models(seen):
    """The logged models that MLflow finds, by the last part of their path."""

    def look():
        client = seen()[0]
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        found = client.search_logged_models([experiment])
        assert len({model.tags["fingerprint"] for model in found}) == len(found)
        return {model.tags["path"].rsplit("/", 1)[-1]: model for model in found}

    return look


def loss(step, configuration=1):
    return round(configuration + 1 / step, 6)


def write(folder, step, configuration=1):
    """A checkpoint as the trainer leaves it, the two newest being kept."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    logged = [{"step": number, "eval_loss": loss(number, configuration), "eval_runtime": 1.0}
              for number in range(2, step + 1, 2)]  # fmt: skip
    files.write_json(made / checkpoints.STATE, {"log_history": logged})
    checkpoints.seal(made)
    for old in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[:-2]:
        shutil.rmtree(old)


def train(layout, folder, steps, settings=None, first=0, configuration=1):
    """A training of `steps`, validated and saved at each second one, that is killed at its end."""
    data = layout.split(RUN, "validation")
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text("{}\n")
    with pytest.raises(Terminated), tracking.stage(settings or Config(), layout, RUN, "sft", {}) as record:
        record.dataset(data, "abc", "validation")
        record.train_from(first)
        record.checkpoints(folder)
        for step in range(first + 1, first + steps + 1):
            validated = {"validation/loss": loss(step, configuration)} if step % 2 == 0 else {}
            record.curve(step, {"train/loss": 1.0, **validated})
            if step % 2 == 0:
                write(folder, step, configuration)
                record.checkpoints(folder)
        raise Terminated(15)


def test_the_kept_ones_are_there_with_their_validation_and_without_their_weights(
    layout, folder, models, seen
):
    train(layout, folder, 6)
    found = models()
    assert set(found) == {"checkpoint-4", "checkpoint-6"}
    client, _, (run,) = seen()
    for name, model in found.items():
        step = int(name[11:])
        assert (layout.root / model.tags["path"] / "adapter_model.safetensors").is_file()
        assert model.params == {"path": model.tags["path"], "step": str(step)}
        assert model.status == "READY" and model.source_run_id == run.info.run_id
        (score,) = client.get_logged_model(model.model_id).metrics
        assert (score.key, score.value, score.step) == ("validation/loss", loss(step), step)
        assert (score.dataset_name, score.dataset_digest) == (f"{RUN}/validation", "abc")
    history = client.get_metric_history(run.info.run_id, "validation/loss")
    assert [(point.step, point.value) for point in history] == [(2, loss(2)), (4, loss(4)), (6, loss(6))]
    assert not list((layout.root / "mlartifacts").rglob("*.safetensors"))


def test_after_a_kill_and_a_second_sending_each_is_there_once(layout, folder, models, seen):
    train(layout, folder, 4)
    before = {name: model.model_id for name, model in models().items()}
    train(layout, folder, 2, first=4)
    assert {name: model.model_id for name, model in models().items()} == {
        "checkpoint-4": before["checkpoint-4"],
        "checkpoint-6": models()["checkpoint-6"].model_id,
    }
    first = {name: model.model_id for name, model in models().items()}
    (path,) = journal.all_of(layout, RUN)
    cursor = path.with_name("sft.mlflow.json")
    for sent in (cursor.read_text(), None):  # nothing is new; all is sent again
        cursor.write_text(sent or json.dumps({"destination": "results", "sent": 0}))
        tracking.sync(Config(), layout)
        assert {name: model.model_id for name, model in models().items()} == first
    client, _, (run,) = seen()
    history = client.get_metric_history(run.info.run_id, "validation/loss")
    assert [point.step for point in history] == [2, 4, 6]
    outputs = [output.model_id for output in client.get_run(run.info.run_id).outputs.model_outputs]
    assert len(outputs) == len(set(outputs)) == 3  # one of them is gone


@pytest.mark.slow
def test_a_store_that_is_filled_later_gets_those_that_are_left_whole(layout, folder, models, monkeypatch):
    train(layout, folder, 6, Config(tracking_uri="http://127.0.0.1:9"))
    shutil.rmtree(folder / "checkpoint-4")

    def fail(*arguments):
        raise OSError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_models, "finish", fail)
        assert "went away" in str(tracking.sync(Config(), layout))
    assert [model.status for model in models().values()] == ["PENDING"]
    tracking.sync(Config(), layout)
    (model,) = models().values()
    assert (model.tags["path"][-12:], model.status, len(model.metrics)) == ("checkpoint-6", "READY", 1)


@pytest.mark.slow
def test_those_of_another_configuration_go_when_its_training_has_removed_them(layout, folder, models, seen):
    train(layout, folder, 4)
    before = models()["checkpoint-4"]
    shutil.rmtree(folder)
    train(layout, folder, 4, Config(seed=2), configuration=2)
    after = models()
    assert set(after) == {"checkpoint-2", "checkpoint-4"}
    assert after["checkpoint-4"].model_id != before.model_id
    assert {run.info.status for run in seen()[2]} == {"KILLED"}
    tracking.sync(Config(), layout)
    assert {name: model.model_id for name, model in models().items()} == {
        name: model.model_id for name, model in after.items()
    }


def test_one_that_a_person_removes_goes_with_the_next_start_and_the_run_stays_as_it_ended(
    layout, folder, models, seen
):
    train(layout, folder, 4)
    ended = seen()[2][0].info.end_time
    shutil.rmtree(folder / "checkpoint-2")
    tracking.prepare(Config(), layout)
    assert set(models()) == {"checkpoint-4"}
    (run,) = seen()[2]
    assert (run.info.status, run.info.end_time) == ("KILLED", ended)
    (path,) = journal.all_of(layout, RUN)
    size = path.stat().st_size
    tracking.prepare(Config(), layout)
    assert path.stat().st_size == size


@pytest.mark.slow
def test_a_training_that_starts_over_leaves_none_of_before_and_names_its_data_again(
    layout, folder, models, seen
):
    train(layout, folder, 4)
    shutil.rmtree(folder)
    train(layout, folder, 2, configuration=2)
    assert set(models()) == {"checkpoint-2"}
    client, _, (second, first) = seen()
    assert models()["checkpoint-2"].source_run_id == second.info.run_id != first.info.run_id
    (score,) = client.get_logged_model(models()["checkpoint-2"].model_id).metrics
    assert score.dataset_name == f"{RUN}/validation"


def test_the_trained_model_takes_their_place_with_the_loss_that_it_was_chosen_by(
    layout, folder, models, seen
):
    train(layout, folder, 4)
    with tracking.stage(Config(), layout, RUN, "sft", {}) as record:
        record.train_from(4)
        shutil.rmtree(folder)
        record.checkpoints(folder)
        trained = layout.trained("sft", RUN)
        said = {"fingerprint": "f", "best_step": 4, "validation_loss": loss(4), "method": "lora"}
        files.write_json(trained / "metrics.json", said)
        record.model(trained, 6)
    (model,) = models().values()
    assert model.tags["path"] == f"sft/{RUN}"
    client, _, (run,) = seen()
    (score,) = client.get_logged_model(model.model_id).metrics
    assert (score.key, score.value, score.step) == ("validation/loss", loss(4), 4)
    assert score.dataset_name == f"{RUN}/validation"
    assert len(client.get_metric_history(run.info.run_id, "validation/loss")) == 2


def test_a_try_on_the_same_server_is_no_version_of_the_whole_runs_model(layout, seen):
    server = f"sqlite:///{layout.root / 'mlflow.db'}"
    limited = Layout(layout.root / "limited_32", shared=layout.root)
    for place, settings in ((layout, Config()), (limited, Config(tracking_uri=server, limit=32))):
        said = {"fingerprint": str(place.root), "method": "lora"}
        files.write_json(place.trained("sft", RUN) / "metrics.json", said)
        parameters = {"limit": settings.limit} if settings.limit else {}
        with tracking.stage(settings, place, RUN, "sft", parameters) as record:
            write(place.checkpoints("sft", RUN), 2)
            record.checkpoints(place.checkpoints("sft", RUN))
            record.model(place.trained("sft", RUN), 2)
    client, parents, children = seen()
    paths = {
        name: client.get_model_version_by_alias(name, "candidate").tags["path"]
        for name in (str(RUN), f"{RUN}_limited_32")
    }
    assert list(paths.values()) == [f"sft/{RUN}", f"limited_32/sft/{RUN}"]
    assert [parent.data.tags.get("limit") for parent in parents] == ["32", None]
    found = client.search_logged_models([children[0].info.experiment_id])
    assert sorted(model.tags["path"] for model in found) == sorted(
        f"{folder}{path}"
        for path in (f"sft/{RUN}", f"checkpoints/sft/{RUN}/checkpoint-2")
        for folder in ("", "limited_32/")
    )


def test_an_evaluation_of_before_says_nothing_about_a_model_of_another_configuration(
    layout, seen, made_evaluation
):
    def trained(settings, fingerprint):
        files.write_json(
            layout.metrics("sft", RUN), {"fingerprint": fingerprint, "seconds": 1, "method": "lora"}
        )
        with tracking.stage(settings, layout, RUN, "sft", {}) as record:
            record.model(layout.trained("sft", RUN), 2)

    def aliased():
        return {
            alias: seen()[0].get_model_version(str(RUN), number).tags["fingerprint"]
            for alias, number in seen()[0].get_registered_model(str(RUN)).aliases.items()
        }

    trained(Config(), "first")
    models = {"sft": {"fingerprint": "first"}, "dpo": {"fingerprint": "not told of"}}
    provenance = {"run_fingerprint": dependencies.run_fingerprint(Config(), RUN)}
    made = {**made_evaluation, "model": models, "provenance": provenance, "final_stage": "sft"}

    def scored(accuracy):
        """Evaluate the model; the newest score that MLflow has of it, and on which data set."""
        made["stages"]["sft"]["test_sets"]["slake"]["accuracy"] = accuracy
        files.write_json(layout.evaluation(RUN), made)
        with tracking.stage(Config(), layout, RUN, "evaluate", {}) as record:
            record.dataset(layout.split(RUN, "test"), made["data_fingerprint"], "evaluation")
        client, _, (evaluating, *_) = seen()
        (model,) = client.search_logged_models([evaluating.info.experiment_id])
        told = [metric for metric in model.metrics if metric.key == "eval/slake/accuracy"]
        score = max(told, key=lambda metric: metric.timestamp)
        (test,) = [found.dataset for found in evaluating.inputs.dataset_inputs]
        assert (score.dataset_name, score.dataset_digest) == (test.name, test.digest)
        return score.value, len(told)

    assert [scored(0.5), scored(0.75), scored(0.75)] == [(0.5, 1), (0.75, 2), (0.75, 2)]
    assert aliased()["champion"] == "first"
    trained(Config(seed=2), "second")
    assert aliased() == {"champion": "first", "candidate": "second"}

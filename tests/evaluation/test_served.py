"""A model at a server, on 127.0.0.1: what is sent, what is read, a server that misbehaves, a job that is killed."""

import base64
import io
import os
import signal
import time
from dataclasses import dataclass, field
from itertools import chain, count, repeat
from pathlib import Path

import numpy as np
import pytest
from chat_server import NONSENSE, Server
from PIL import Image, ImageChops

from workflow_scripts import evaluate as command
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import load
from workflow_scripts.evaluation.backends.served import KEY_VARIABLE, ServedModel
from workflow_scripts.models import processors, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue
from workflow_scripts.models.pixels import Pixels
from workflow_scripts.stages import ask, convert, download

SIDE = 112
RUN = Run("rad", "4.1v", "base")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server():
    with Server() as found:
        found.rule = lambda content: "<answer>CT</answer>"
        yield found
        found.shutdown()


@dataclass
class Settings:
    url: str
    model: str = "glm"
    parameters: dict = field(default_factory=dict)
    concurrent: int = 4
    timeout: float = 1
    retries: int = 2


@pytest.fixture(scope="module", params=["4.1v-base", "4.1v-thinking", "4.5v-base"])
def dialogue(request, tmp_path_factory):
    name, mode = request.param.split("-")
    folder = tmp_path_factory.mktemp("processor")
    processor = standins.processor(VERSIONS[name])
    processor.image_processor.size = {
        "shortest_edge": 2 * 56**2,
        "longest_edge": 2 * 448**2,
    }  # a range, as real ones
    processor.save_pretrained(folder)
    return Dialogue(processors.load(folder, VERSIONS[name], SIDE), name, mode)


@pytest.fixture
def model(server, dialogue):
    found = ServedModel(Settings(server.url), "glm", dialogue, max_new_tokens=9, first_wait=0.001)
    yield found
    found.close()


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((400, 300)).save(tmp_path / "a.png")
    Image.new("L", (90, 60), 40).save(tmp_path / "b.png")
    return tmp_path


def record(number=0, images=("a.png",), messages=None):
    question = {"role": "user", "content": "<image>" * len(images) + f"Which modality? {number}"}
    return {"id": str(number), "images": list(images), "messages": messages or [question]}


def shown(part) -> Image.Image:
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_pixels_that_are_sent_are_those_that_the_model_is_shown(server, dialogue, model, folder):
    list(model.stream([record(images=("a.png", "b.png"))], folder))
    first, second, text = server.requests[0]["messages"][-1]["content"]
    assert text == {"type": "text", "text": "Which modality? 0"}
    sent = [shown(first), shown(second)]
    processor = dialogue.processor.image_processor
    assert sent[0].width * sent[0].height <= SIDE**2 < 400 * 300
    for name, image in zip(("a.png", "b.png"), sent, strict=True):
        patches, grid = Pixels(processor)(str(folder / name))
        again = processor([image], return_tensors="pt")
        assert again["image_grid_thw"][0].tolist() == grid.tolist()
        assert (again["pixel_values"] - patches).abs().max() < 1e-4


def test_a_blank_image_is_grey(server, model, folder):
    list(model.stream([record()], folder, blank=True))
    image = shown(server.requests[0]["messages"][-1]["content"][0])
    grey = Image.new("RGB", image.size, (128, 128, 128))
    assert ImageChops.difference(image.convert("RGB"), grey).getbbox() is None


def test_earlier_answers_are_sent_without_thoughts_and_the_last_not_at_all(server, dialogue, model, folder):
    form = VERSIONS[dialogue.model_version].answer_format(dialogue.mode)
    messages = [
        {"role": "user", "content": "<image>Where?"},
        {"role": "assistant", "content": form.write("Left <lung>", "A thought.")},
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": form.write("CT")},
    ]
    list(model.stream([record(messages=messages)], folder))
    asked = server.requests[0]["messages"]
    assert [message["role"] for message in asked] == ["user", "assistant", "user"]
    assert asked[1]["content"] == "Left <lung>"
    assert asked[0]["content"][0]["type"] == "image_url"
    assert asked[2]["content"] == [{"type": "text", "text": "Which?"}]


def test_it_is_greedy_within_the_length_and_hybrids_are_told_not_to_think(server, dialogue, model, folder):
    list(model.stream([record()], folder))
    request = {key: value for key, value in server.requests[0].items() if key != "messages"}
    extra = {"chat_template_kwargs": {"enable_thinking": False}} if dialogue.model_version == "4.5v" else {}
    assert request == {"model": "glm", "max_tokens": 9, "temperature": 0, **extra}


def test_parameters_go_before_and_null_takes_a_field_away(server, dialogue, folder):
    settings = Settings(server.url, parameters={"max_tokens": None, "max_completion_tokens": 7})
    list(ServedModel(settings, "glm", dialogue, 9).stream([record()], folder))
    assert "max_tokens" not in server.requests[0] and server.requests[0]["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    ("message", "choice", "text", "truncated"),
    [
        ({"content": "CT"}, {}, "CT", False),
        ({"content": "C"}, {"finish_reason": "length"}, "C", True),
        ({"content": "CT", "reasoning_content": "Dark."}, {}, "<think>Dark.</think>CT", False),
        ({"content": "CT", "reasoning": "Dark."}, {}, "<think>Dark.</think>CT", False),
        ({"content": None, "reasoning": "Da"}, {"finish_reason": "length"}, "<think>Da", True),
        ({"content": "Dark.</think>CT"}, {}, "<think>Dark.</think>CT", False),
        ({"content": None}, {}, "", False),
    ],
)
def test_a_thought_is_put_back_and_what_was_cut_is_truncated(
    server, model, folder, message, choice, text, truncated
):
    server.message, server.choice = message, choice
    ((_, (generation,)),) = model.stream([record()], folder)
    assert (generation.text, generation.truncated) == (text, truncated)


@pytest.mark.parametrize(
    ("text", "choice", "read"),
    [
        ("<answer>CT", {}, "CT"),
        ("<answer>CT", {"stop_reason": "</answer>"}, "CT"),
        ("<answer>CT", {"stop_reason": 0}, None),  # another token has ended it
        ("<answer>CT", {"finish_reason": "length"}, None),
        ("<answer>CT</answer>", {}, "CT"),
    ],
)
def test_a_closing_tag_that_the_server_took_for_a_stop_is_put_back(
    server, dialogue, model, folder, text, choice, read
):
    form = VERSIONS[dialogue.model_version].answer_format(dialogue.mode)
    if not form.tagged:
        pytest.skip("this form has no tags")
    thought = "<think></think>" if form.thinking else ""
    server.rule, server.choice = lambda content: thought + text, choice
    ((_, (generation,)),) = model.stream([record()], folder)
    assert form.read(generation.text) == read


def test_samples_are_drawn_by_seeds_of_their_own(server, model, folder):
    ((_, found),) = model.stream([record()], folder, temperature=0.7, samples=3, seed=5)
    assert len(found) == 3
    assert {(request["temperature"], request["seed"]) for request in server.requests} == {
        (0.7, 5), (0.7, 6), (0.7, 7)
    }  # fmt: skip


def test_a_server_that_misbehaves_now_and_then_answers_everything_at_once(server, dialogue, folder):
    faults = [500, 429, "hang up", 503, "slow", *NONSENSE]
    server.faults = chain(chain.from_iterable((fault, None) for fault in faults), repeat(None))
    model = ServedModel(
        Settings(server.url, timeout=0.3, retries=30), "glm", dialogue, max_new_tokens=9, first_wait=0.001
    )
    found = dict(model.stream([record(number) for number in range(20)], folder))
    assert sorted(found) == list(range(20)) and server.most_at_once > 1
    # On a busy machine a good answer may be slower than the limit, and is asked for again.
    assert 20 + len(faults) <= len(server.requests) < 2 * (20 + len(faults))
    assert all(generation.text == "<answer>CT</answer>" for (generation,) in found.values())


def test_what_has_no_answer_is_said_after_all_others_came(server, model, folder):
    server.rule = lambda content: 1 / 0 if content[-1]["text"].endswith(" 3") else "CT"
    found = {}
    with pytest.raises(UserError, match=r"1 of 6 questions had no answer.*start again: the others are kept"):
        for index, generations in model.stream([record(number) for number in range(6)], folder):
            found[index] = generations
    assert sorted(found) == [0, 1, 2, 4, 5]


def test_answers_of_two_models_are_not_mixed(server, model, folder):
    names = count()
    server.rule = lambda content: server.body.update(model=f"glm-{next(names)}") or "CT"
    with pytest.raises(UserError, match="answers came from glm-. and glm-..*own name"):
        list(model.stream([record(number) for number in range(8)], folder))


SETTINGS = """
datasets: {{rad: {{reader: rad, embedded: 10}}}}
models: {{4.1v: {{base: {{embedded: true}}}}}}
evaluation:
  max_new_tokens: 8
  gpus: 0
  backend: openai
  server: {{url: {url}, model: {model}, concurrent: {concurrent}}}
tracking: []
"""


def configured(folder: Path, server, model="glm", concurrent=4) -> Path:
    path = folder / "config.yaml"
    path.write_text(SETTINGS.format(url=server.url, model=model, concurrent=concurrent))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results with data and an untrained model."""
    root = tmp_path_factory.mktemp("served")
    (root / "none.yaml").write_text(SETTINGS.format(url="http://127.0.0.1:9/v1", model="glm", concurrent=1))
    settings, layout = load([root / "none.yaml"]), Layout(root / "results")
    download.download_source(settings, layout, "rad")
    download.download_model(settings, layout, RUN.model_version, RUN.mode)
    convert.convert(settings, layout, RUN)
    return layout


def evaluated(config: Path, layout: Layout, output: Path) -> list[str]:
    model = str(layout.model(RUN.model_version, RUN.mode))
    flags = ["--config", str(config), "--results", str(layout.root), "--output", str(output)]
    names = ["--model_version", RUN.model_version, "--mode", RUN.mode, "--test_datasets", RUN.dataset]
    return [*flags, *names, "--model_path", model]


def asked(server) -> int:
    """Questions; a model is also said hello to."""
    return sum(request["messages"][-1]["content"] != "Hello" for request in server.requests)


def test_evaluate_asks_a_server_once_and_says_where_pictures_go(server, made, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    server.body = {"model": "glm-2026-11"}
    flags = evaluated(configured(tmp_path, server), made, tmp_path / "scores.json")
    with caplog.at_level("INFO"):
        assert command.main(flags) == 0
    result = files.read_json(tmp_path / "scores.json")
    assert result["asked"]["backend"] == "openai" and result["overall"]["n"] == len(
        list(files.read_jsonl(made.split(RUN, "test")))
    )
    assert f"images are sent to {server.url}, to the model glm" in caplog.text
    assert set(server.keys) == {"Bearer secret"} and "secret" not in caplog.text
    assert not any("secret" in path.read_text("utf-8") for path in tmp_path.rglob("*.json*"))
    once = asked(server)
    assert command.main(flags) == 0 and asked(server) == once
    server.body = {"model": "glm-2026-12"}  # the same alias
    assert command.main(flags) == 0 and asked(server) == 2 * once


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, for the server's threads
def test_a_killed_job_goes_on_and_asks_nothing_twice(server, made, tmp_path):
    server.rule = lambda content: time.sleep(0.2) or "<answer>CT</answer>"
    config = configured(tmp_path, server, "slow-glm", concurrent=1)
    flags = evaluated(config, made, tmp_path / "scores.json")
    process = os.fork()  # a new interpreter would first import for seconds
    if not process:
        os._exit(command.main(flags))
    until = time.monotonic() + 240
    while asked(server) < 4:
        assert time.monotonic() < until and os.waitpid(process, os.WNOHANG) == (0, 0)
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    before = asked(server)
    server.rule = lambda content: "<answer>CT</answer>"
    assert command.main(flags) == 0
    tested = list(files.read_jsonl(made.split(RUN, "test")))
    unique = {(row["question"], *row["images"]) for row in tested}
    assert before < len(unique) <= asked(server) <= len(unique) + 1  # the one that was under way


def test_one_served_model_does_not_answer_for_all_models_of_a_run(server, made, tmp_path):
    settings = load([configured(tmp_path, server)])
    with pytest.raises(UserError, match=r"write \{model\} in it"):
        ask.ask(settings, made, RUN, "untrained", "original")
    settings = load([configured(tmp_path, server, "'glm-{model}'")])
    assert ask.ask(settings, made, RUN, "untrained", "original")["asked_now"]
    assert {request["model"] for request in server.requests} == {"glm-untrained"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("backend: openai", "needs server"),
        ("backend: openai, thought_budget: 5, server: {url: http://a, model: b}", "thought_budget"),
        ("backend: vllm, gpus: 0", "needs gpus"),
    ],
)
def test_a_backend_that_cannot_is_refused_before_any_job(tmp_path, changed, said):
    (tmp_path / "config.yaml").write_text(f"evaluation: {{{changed}}}\n")
    with pytest.raises(UserError, match=said):
        load([tmp_path / "config.yaml"])

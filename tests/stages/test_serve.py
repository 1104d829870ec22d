"""The page that asks a model: a picture's answer with the one without it, the thought apart, nothing from elsewhere."""

import gc
import importlib.util
import socket

import pytest
from PIL import Image

from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation.generation import Generation
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages import serve
from workflow_scripts.stages.talk import Examined, in_terminal

FORM = VERSIONS["4.1v"].answer_format("thinking")


class Model:
    """Answers by whether it sees the picture."""

    def stream(self, records, folder, blank=False, **_):
        word = "nothing" if blank else "CT"
        yield 0, [Generation(f"<think>Dark.</think><answer>{word}</answer>", False, 5)]


@pytest.fixture
def place(tmp_path):
    return Examined(tmp_path / "slake_4.1v_thinking", Model(), FORM)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "scan.png"
    Image.new("RGB", (90, 120), (70, 20, 160)).save(path)
    return path


def test_both_languages_have_each_text():
    assert serve.TEXTS["en"].keys() == serve.TEXTS["zh"].keys()


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="`make page` adds it"):
        serve.installed()


def test_a_port_in_use_is_said(place):
    with socket.socket() as taken:
        taken.bind((serve.HOST, 0))
        taken.listen()
        with pytest.raises(UserError, match="another --port"):
            serve.serve(place, taken.getsockname()[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # gradio's own
def test_the_page_answers_with_and_without_the_picture(place, picture, monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    for package in ("gradio", "gradio_client"):
        pytest.importorskip(package)
    from gradio_client import Client, handle_file

    built, _, texts = serve.page(place)
    _, address, _ = built.launch(
        server_name=serve.HOST, prevent_thread_lock=True, quiet=True, share=False, i18n=texts
    )
    try:
        client = Client(address, verbose=False)
        _, said = client.predict("Which modality?", handle_file(picture), True, [], api_name="/answer")
        assert "Dark." in str(said[1]) and said[1]["metadata"]["title"] == "Thought"
        assert "CT" in str(said[2]) and "without the picture: nothing" in str(said[2])
    finally:
        built.close()
        gc.collect()  # it leaves sockets and event loops open, which warn when they go


def test_in_a_terminal_further_questions_follow_until_an_empty_line(place, picture, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    questions = iter(["Which organ?", ""])
    in_terminal(place, [picture], "Which modality?", True, lambda prompt: next(questions))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("CT")] == [
        line for line in lines if line.startswith("CT   (0.0 s")
    ]
    assert lines.count("[thought] Dark.") == 2

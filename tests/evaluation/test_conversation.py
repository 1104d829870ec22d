"""Questions of a person about pictures: each follows the turns before it, and grey pictures leave no trace."""

import shutil

import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation.conversation import Conversation
from workflow_scripts.evaluation.generation import Generation
from workflow_scripts.evaluation.generation.generator import Generator
from workflow_scripts.models import loading, processors, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue

FORM = VERSIONS["4.1v"].answer_format("thinking")


class Recorded(Generator):
    """Keeps the dialogues that it was asked, and answers as told."""

    def __init__(self, text):
        self.text, self.asked = text, []

    def stream(self, records, folder, blank=False, temperature=None, samples=1, seed=0):
        self.asked.append((records[0]["messages"], records[0]["images"], blank))
        yield 0, [Generation(self.text, False, 5)]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "scan.png"
    Image.new("RGB", (90, 120), (70, 20, 160)).save(path)
    return path


def test_a_question_follows_the_turns_before_it(picture):
    model = Recorded("<think>Dark.</think><answer>CT &lt;1></answer>")
    talk = Conversation(model, FORM, [picture])
    reply = talk.ask(" Which <image> modality? ")
    assert (reply.thought, reply.answer, reply.shown) == ("Dark.", "CT <1>", "CT <1>")
    talk.ask_blank("And without it?")
    talk.ask("Why?")
    first = [{"role": "user", "content": "<image>Which &lt;image> modality?"}]
    answered = [*first, {"role": "assistant", "content": model.text}]
    assert [messages for messages, _, _ in model.asked] == [
        first,
        [*answered, {"role": "user", "content": "And without it?"}],
        [*answered, {"role": "user", "content": "Why?"}],
    ]
    assert [blank for _, _, blank in model.asked] == [False, True, False]
    assert all(images == [str(picture.resolve())] for _, images, _ in model.asked)


def test_what_has_not_the_form_is_shown_as_it_is(picture):
    reply = Conversation(Recorded("<think>on and on"), FORM, [picture]).ask("Where?")
    assert reply.answer is None and reply.shown == "<think>on and on"


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_picture_that_cannot_be_shown_is_said_before_anything_is_asked(tmp_path, content):
    path = tmp_path / "scan.png"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"scan\.png"):
        Conversation(Recorded(""), FORM, [path])


def test_a_model_answers_in_turns(tmp_path, picture):
    version = VERSIONS["4.1v"]
    standins.save(version, "thinking", tmp_path / "model")
    processor = processors.load(tmp_path / "model", version, 112)
    model = Generator(
        loading.model(tmp_path / "model", torch.float32, torch.device("cpu")),
        processor,
        Dialogue(processor, "4.1v", "thinking"),
        4096,
        8,
    )
    dicom = shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / "scan.dcm")
    assert Conversation(model, FORM, [dicom]).ask("Is there a fracture?").text
    talk = Conversation(model, FORM, [picture])
    assert talk.ask("Which modality?").text
    assert talk.ask("Which organ?").text and len(talk.messages) == 4

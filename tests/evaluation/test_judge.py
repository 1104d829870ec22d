"""The judge and its client, against a server on 127.0.0.1 that also misbehaves."""

import json
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, repeat

import pytest
from chat_server import NONSENSE, Server
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base import locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation.backends.openai_client import GIVE_UP_AFTER, NoAnswer, OpenAIClient
from workflow_scripts.evaluation.protocols import breakdown
from workflow_scripts.evaluation.protocols.judge import Judge, parsed


@pytest.fixture
def server():
    with Server() as found:
        yield found
        found.shutdown()


@dataclass
class Asking:
    url: str
    model: str = "judge-1"
    parameters: dict = field(default_factory=lambda: {"temperature": 0, "max_tokens": 64})
    concurrent: int = 4
    timeout: float = 5
    retries: int = 2


@pytest.fixture
def judge(server, tmp_path):
    return Judge(Asking(server.url), tmp_path / "judge" / "verdicts.jsonl", first_wait=0.001)


@pytest.fixture
def client(server, request):
    """It waits longer than any server stalls, but for one that is to be slow."""
    slow = "[slow]" in request.node.name
    server.slow, timeout = (2.0, 1.0) if slow else (0.5, 60.0)
    found = OpenAIClient(server.url, "model", "TEST_API_KEY", timeout=timeout, retries=2, first_wait=0.001)
    yield found
    found.close()


def row(gold, text, answer_type="open", question="What is shown?", **more):
    return {
        "question": question,
        "gold": gold,
        "text": text,
        "answer": text,
        "answer_type": answer_type,
        "source": "slake",
        "language": "en",
        "truncated": False,
        "image_id": "1",
        **more,
    }


MESSAGES = [{"role": "user", "content": "hello"}]


def test_a_completion_and_what_is_sent(server, client, monkeypatch):
    found = client.complete(MESSAGES, max_tokens=7)
    assert found[:3] == ("Same words. VERDICT: CORRECT", "stop", 4)
    assert server.requests == [{"model": "model", "messages": MESSAGES, "max_tokens": 7}]
    assert server.paths == ["/v1/chat/completions"] and server.keys == [None]
    monkeypatch.setenv("TEST_API_KEY", "secret")
    OpenAIClient(f"{server.url}/", "model", "TEST_API_KEY", timeout=1, retries=0).complete(MESSAGES)
    assert server.keys[-1] == "Bearer secret" and server.paths[-1] == "/v1/chat/completions"


@pytest.mark.parametrize(
    "fault", [500, 503, 429, "slow", "hang up", *NONSENSE], ids=lambda fault: str(fault)[:30]
)
def test_what_passes_is_tried_again(server, client, fault):
    server.faults = chain([fault, fault], repeat(None))
    assert client.complete(MESSAGES).finish_reason == "stop"
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [500, "slow", b"<html>"], ids=str)
def test_what_stays_is_no_answer(server, client, fault):
    server.faults = repeat(fault)
    with pytest.raises(NoAnswer, match=r"(HTTP 500|no answer in time|no completion).*, 3 times"):
        client.complete(MESSAGES)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "TEST_API_KEY"), (404, "ends in /v1"), (400, "parameters"), (302, "parameters")],
)
def test_a_refusal_is_one_line_at_once_without_the_key(server, client, status, advice, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", "secret")
    server.faults = repeat(status)
    with pytest.raises(UserError, match=rf"^http://127\.0\.0\.1.*HTTP {status}.*says no.*{advice}") as caught:
        client.complete(MESSAGES)
    assert len(server.requests) == 1 and "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_no_server_is_a_line_that_says_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://someone:password@127.0.0.1:{taken.getsockname()[1]}/v1"
        client = OpenAIClient(url, "model", "TEST_API_KEY", timeout=1, retries=1, first_wait=0.001)
        with pytest.raises(UserError, match=r"no server answers.*start the server") as caught:
            client.complete(MESSAGES)
    assert "password" not in str(caught.value)


def test_open_answers_are_judged_and_closed_ones_scored_by_rule(server, judge):
    server.rule = lambda text: f"VERDICT: {'CORRECT' if 'Lunge' in text else 'INCORRECT'}"
    rows = [row("lung", "Lunge"), row("lung", "heart"), row("yes", "Yes!", "closed"), row("lung", " ")]
    assert [verdict.score for verdict in judge.verdicts(rows)] == [1, 0, 1, 0]
    assert len(server.requests) == 2  # neither the closed question nor the empty answer
    asked = "\n".join(request["messages"][-1]["content"] for request in server.requests)
    assert '"What is shown?"' in asked and '"lung"' in asked and '"Lunge"' in asked
    assert judge.metrics(rows) == {
        "n": 4,
        "accuracy": 0.5,
        "open_accuracy": pytest.approx(1 / 3),
        "closed_accuracy": 1,
    }


def test_no_answer_is_judged_twice_and_all_verdicts_are_kept(server, judge, tmp_path):
    rows = [row("lung", "lungs"), row("lung", "lungs", image_id="2"), row("lung", "left lung")]
    first = judge.verdicts(rows)
    assert len(server.requests) == 2
    kept = [json.loads(line) for line in judge.kept.read_text("utf-8").splitlines()]
    assert Counter(line["answer"] for line in kept) == {"lungs": 1, "left lung": 1}
    assert all(line["correct"] and line["said"] and line["model"] == "judge-1" for line in kept)
    assert Judge(judge.asking, judge.kept).verdicts(rows) == first and len(server.requests) == 2
    Judge(Asking(server.url, model="judge-2"), judge.kept).verdicts(rows)
    assert len(server.requests) == 4
    assert breakdown(rows, protocol=judge)["overall"]["n"] == 3


def test_only_a_torn_line_is_asked_again(server, judge):
    rows = [row("lung", "a"), row("lung", "b"), row("lung", "c")]
    judge.verdicts(rows)
    whole = judge.kept.read_bytes()
    judge.kept.write_bytes(whole[:-20])
    judge.verdicts(rows)
    assert len(server.requests) == 4
    judge.verdicts(rows)
    assert len(server.requests) == 4 and len(judge.kept.read_bytes().splitlines()) == 3


def test_a_verdict_that_a_bad_disk_has_changed_is_asked_again(server, judge):
    rows = [row("lung", "a"), row("lung", "b")]
    judge.verdicts(rows)
    judge.kept.write_bytes(judge.kept.read_bytes().replace(b"true", b"null", 1))
    assert [verdict.score for verdict in judge.verdicts(rows)] == [1, 1] and len(server.requests) == 3


def test_two_commands_do_not_ask_the_same_at_once(server, judge, monkeypatch):
    monkeypatch.setattr(locks, "POLL", 0.05)
    server.faults = repeat("slow")
    rows = [row("lung", "a"), row("lung", "b")]
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: Judge(judge.asking, judge.kept).verdicts(rows), range(2)))
    assert both[0] == both[1] and len(server.requests) == 2


def test_a_verdict_that_says_neither_is_unscored_shown_and_kept(server, judge, caplog):
    server.rule = lambda text: "Hard to say." if '"heart"' in text else "VERDICT: CORRECT"
    rows = [row("lung", "heart"), row("lung", "lungs")]
    verdict, _ = judge.verdicts(rows)
    assert (verdict.score, verdict.note) == (None, "unscored") and "Hard to say." in verdict.why
    assert judge.metrics(rows) == {
        "n": 1,
        "unscored": 1,
        "accuracy": 1,
        "open_accuracy": 1,
        "closed_accuracy": None,
    }
    assert "Hard to say." in caplog.text and len(server.requests) == 2
    assert [json.loads(line)["correct"] for line in judge.kept.read_text().splitlines()].count(None) == 1


def test_a_question_without_an_answer_is_unscored_and_asked_again_next_time(server, judge):
    server.faults = chain(repeat(500, 3), repeat(None))
    judge.asking.concurrent = 1
    rows = [row("lung", "a"), row("lung", "b")]
    first = judge.verdicts(rows)
    assert Counter(verdict.note for verdict in first) == {"unscored": 1, "": 1}
    assert "HTTP 500" in next(verdict.why for verdict in first if verdict.note)
    assert [verdict.score for verdict in judge.verdicts(rows)] == [1, 1] and len(server.requests) == 5


def test_a_server_that_stays_broken_ends_the_work_and_what_came_is_kept(server, judge):
    rows = [row("lung", f"answer {number}") for number in range(40)]
    judge.asking.concurrent = 1
    server.faults = chain(repeat(None, 5), repeat(500))
    with pytest.raises(UserError, match=rf"{GIVE_UP_AFTER} questions in a row without an answer \(HTTP 500"):
        judge.verdicts(rows)
    assert len(judge.kept.read_bytes().splitlines()) == 5 and len(server.requests) < 5 + 3 * 20
    server.faults = repeat(None)
    before = len(server.requests)
    assert judge.metrics(rows)["n"] == 40 and len(server.requests) == before + 35


def test_questions_are_asked_at_once(server, judge):
    server.faults = repeat("slow")
    judge.verdicts([row("lung", f"answer {number}") for number in range(4)])
    assert server.most_at_once > 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("VERDICT: CORRECT", True),
        ("It is wrong.\n**Verdict:** INCORRECT.", False),
        ("VERDICT: CORRECT\nOn second thought,\nverdict: incorrect", False),
        ("Correct.", None),
        ("VERDICT: maybe", None),
        ("", None),
    ],
)
def test_verdicts_are_read(said, expected):
    assert parsed(said) is expected


@given(st.text())
def test_any_text_is_a_verdict_or_none(said):
    assert parsed(said) in (True, False, None)

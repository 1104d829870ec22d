"""The page of a run, in a browser: whole, safe with any text, and every number leads to its questions."""

import json
import re
import statistics
from urllib.parse import parse_qsl

import pytest

from benchmarks import pages
from benchmarks.browser import CHROMIUM, browser
from tests.pages.test_pages import CHINESE_FONTS
from workflow_scripts.datasets.tokens import tokens

HOSTILE = '</script><img src=x onerror="document.title=1"><script>document.title = "broken"</script>\u2028'
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def lines():
    made = pages.rows(130, 13, 30)
    for rows in made.values():
        rows[2] |= {"question": f"肺 {HOSTILE}", "organ": HOSTILE, "language": "zh", "gold": "不是"}
    made["sft"][2] |= {"text": f"<think>{HOSTILE}</think><answer>{HOSTILE}</answer>", "answer": HOSTILE}
    made["dpo"][4] |= {"text": "<think>never ends", "answer": None, "truncated": True, "repeated": True}
    return made


@pytest.fixture(scope="module")
def page(lines, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "evaluation.html"
    pages.write(path, lines)
    return path


@pytest.fixture(scope="module")
def tab(page):
    with browser() as tab:
        tab.open(page)
        tab.wait("document.getElementById('questions')?.dataset.shown")
        yield tab


def shown(tab, fragment):
    """How many questions a filter lists, once it is shown."""
    wanted = json.dumps(fragment)
    tab.value(
        f"if (decodeURIComponent(location.hash) !== decodeURIComponent({wanted})) {{"
        f"delete document.getElementById('questions').dataset.shown; location.hash = {wanted}; }}"
    )
    tab.wait("document.getElementById('questions').dataset.shown")
    return int(tab.value("document.getElementById('questions').dataset.shown"))


def test_the_page_stands_alone_and_runs_its_own_script_only(page):
    text = page.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert (
        "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe-inline'; s" in policy
    )
    assert "document.title" not in text.replace("&#34;", '"').replace(HOSTILE, "") or "<img src=x" not in text
    assert text.count("<script") == 4 and not re.search(r"<(?:link|iframe|object|img)\b", text)
    parts = [text.index(f'id="{part}"') for part in ("questions-data", "pictures", "texts")]
    assert (
        parts[0] < text.index("<script>") < parts[1] < parts[2]
    )  # listed while the long parts are still read
    assert all(f'"{font}"' in text for font in CHINESE_FONTS) and "prefers-color-scheme" in text


def test_numbers_stand_beside_their_doubt(page, lines):
    text = page.read_text("utf-8")
    found = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text.partition("<body>")[2]))
    assert "no difference beyond noise" in found and "Holm" in found and "show differences of" in found
    for protocol in ("strict", "llava_med", "medevalkit", "lmms_slake", "vqa_bleu_f1", "closed_only"):
        assert f"{protocol}: what it counts, and its faults" in found
    assert re.search(r"free of leaks \d+ \d+ \d+\.\d \[\d+\.\d, \d+\.\d\]", found)
    assert text.count("<svg") == 4


def test_what_was_answered_to_closed_questions_counts_each_once(page, lines):
    text = page.read_text("utf-8").partition('class="confusions"')[2].partition("</div>")[0]
    counts = [int(number) for number in re.findall(r">(\d+)</text>", text)]
    closed = [row for row in lines["dpo"] if row["answer_type"] == "closed"]
    assert len(counts) == 2 * 2 * 4 and sum(counts) == len(closed) > 50
    unreadable = sum(row["answer"] is None for row in closed)
    assert sum(counts[3::4]) == unreadable


@needs_browser
def test_every_number_leads_to_its_questions(tab, page, lines):
    text = page.read_text("utf-8")
    rows = dict(re.findall(r'<a href="#([^"]+=[^"]+)">([\d,]+)(?: \w+)?</a>', text.partition("<body>")[2]))
    rows = {
        fragment: count for fragment, count in rows.items() if "sort=" not in fragment
    }  # a median, the longest
    assert len(rows) > 30
    for fragment, count in rows.items():
        assert shown(tab, "#" + fragment.replace("&amp;", "&")) == int(count.replace(",", "")), fragment


@needs_browser
def test_a_share_leads_to_what_it_is_a_share_of(tab, page, lines):
    text = page.read_text("utf-8").partition("<body>")[2]
    found = re.findall(r'<a href="#([^"]+verdict=(?:right|unreadable|truncated|repeated))">([\d.]+) ?<', text)
    checked = 0
    for fragment, percent in set(found):
        fragment = fragment.replace("&amp;", "&")
        whole = "&".join(f"{k}={v}" for k, v in parse_qsl(fragment) if k != "verdict")
        if HOSTILE not in fragment and "%" not in fragment:
            n, part = shown(tab, "#" + whole), shown(tab, "#" + fragment)
            assert f"{100 * part / n:.1f}" == percent, fragment
            checked += 1
    assert checked > 30


def test_every_number_in_a_table_is_a_link(page):
    body = page.read_text("utf-8").partition("<body>")[2]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", body, re.S)
    assert len(cells) > 200
    bare = [re.sub(r"<a [^>]*href=\"#[^\"]+\">.*?</a>", "", cell, flags=re.S) for cell in cells]
    assert [text for text in bare if re.search(r"\d", text)] == []


@needs_browser
def test_the_mean_above_the_list_is_the_number_that_led_there(tab, page):
    text = page.read_text("utf-8").partition("<body>")[2]
    found = re.findall(r'<a href="#([^"]*number=[^"]+)">(?:[a-z_ 0-9]* )?([\d.]+)</a>', text)
    assert len(found) > 25 and len({fragment for fragment, _ in found}) > 25
    for fragment, percent in found:
        asked = dict(parse_qsl(fragment.replace("&amp;", "&")))
        whole = {key: value for key, value in asked.items() if key != "verdict"}
        assert shown(tab, "#" + "&".join(f"{key}={value}" for key, value in whole.items())) == 130
        place = list(pages.rendering.LINES).index(asked["line"]) + 1
        mean = tab.value(f"document.querySelector('#questions tbody tr').cells[{place}].innerText")
        assert float(mean.removesuffix(" %")) == pytest.approx(float(percent), abs=0.1001), fragment


@needs_browser
@pytest.mark.parametrize("column", ["words", "tokens", "seconds"])
def test_costs_lead_to_the_answers_with_most_of_them(tab, lines, column):
    assert shown(tab, f"#line=dpo&sort={column}") == 130
    rows = tab.value("[...document.querySelectorAll('.question')].map(card => Number(card.dataset.row))")
    of = {
        "words": lambda row: len(tokens(row["answer"] or "")) if row["answer"] is not None else -1,
        "tokens": lambda row: row["tokens"],
        "seconds": lambda row: row["seconds"],
    }[column]
    values = [of(row) for row in lines["dpo"]]
    assert [values[row] for row in rows] == sorted(values, reverse=True)[:50]
    said = tab.value("document.querySelectorAll('#questions tbody tr')[1].cells[4].innerText")
    known = [value for value in values if value >= 0]
    assert [float(part) for part in said.split(", ")] == pytest.approx(
        [statistics.mean(known), statistics.median(known), max(known)], abs=0.01
    )


@needs_browser
def test_one_right_and_another_wrong(tab, lines):
    def right(line, place):
        return lines[line][place]["answer"] == lines[line][place]["gold"]

    wanted = [place for place in range(130) if right("sft", place) and not right("dpo", place) and place != 2]
    count = shown(tab, "#line=sft&verdict=right&other=dpo&other_verdict=wrong")
    assert count == len(wanted) > 5
    ids = tab.value("[...document.querySelectorAll('.question')].map(card => Number(card.dataset.row))")
    assert ids == wanted[:50]


@needs_browser
def test_filters_are_in_the_address_and_back_undoes_them(tab):
    shown(tab, "#language=zh")
    tab.value("{const s = document.querySelector('select[name=line]'); s.value = 'dpo'; s.onchange();}")
    tab.wait("location.hash === '#language=zh&line=dpo'")
    tab.value("history.back()")
    tab.wait("location.hash === '#language=zh' && document.querySelector('select[name=line]').value === ''")


@needs_browser
def test_the_list_is_paged_and_searched(tab, lines):
    assert shown(tab, "#all=1") == 130
    assert tab.value("document.querySelectorAll('.question').length") == 50
    shown(tab, "#page=3")
    assert tab.value("document.querySelectorAll('.question').length") == 30
    assert shown(tab, "#q=NEVER ENDS") == 1
    assert shown(tab, "#id=made-7") == 1
    assert tab.value("document.querySelectorAll('.open .said').length") == 6


@needs_browser
def test_a_question_shows_its_evidence_and_texts_stay_texts(tab, lines):
    assert shown(tab, "#id=made-2&line=sft") == 1
    text = tab.value("document.querySelector('.evidence').innerText")
    assert (
        HOSTILE.strip("\u2028") in text.replace("\n", " ")
        and "Thought, " in text
        and "肺" in tab.value("document.body.innerText")
    )
    assert tab.value("document.querySelector('.ask').lang") == "zh"
    assert tab.value("document.querySelectorAll('#questions script').length") == 0
    assert tab.value("document.title") == "made_4.1v_thinking: evaluation"
    assert tab.value("document.querySelector('.said details').open") is False
    verdicts = tab.value("[...document.querySelectorAll('.said .verdicts')].map(t => t.rows.length)")
    assert verdicts == [6] * 6
    assert tab.value("document.querySelectorAll('.twin img').length") == 1  # the other picture
    assert tab.value("document.querySelectorAll('.twin .blank').length") == 1
    assert tab.value("document.querySelector('.said .why').textContent.length") > 5


@needs_browser
def test_a_thought_that_never_closed_says_so(tab):
    shown(tab, "#id=made-4")
    text = tab.value("document.querySelector('.evidence').innerText")
    assert "never closed" in text and "no answer could be read" in text and "repeats itself" in text


@needs_browser
def test_the_keyboard(tab):
    shown(tab, "#all=1")
    at = "document.activeElement.closest('.question')?.dataset.row"
    for key, row in (("j", "0"), ("j", "1"), ("ArrowDown", "2"), ("k", "1")):
        tab.press(key)
        assert tab.value(at) == row, key
    tab.press("Enter")
    assert tab.value("document.querySelectorAll('.question.open').length") == 1
    tab.press("Escape")
    assert tab.value("document.querySelectorAll('.question.open').length") == 0
    tab.press("n")
    tab.wait("location.hash.includes('page=2')")
    tab.press("/")
    assert tab.value("document.activeElement.type") == "search"
    tab.press("Escape")
    assert tab.value("document.activeElement.type") != "search"


@needs_browser
@pytest.mark.parametrize("width", [360, 400, 900, 1400])
def test_nothing_is_wider_than_the_window(tab, width):
    tab.resize(width, 900)
    shown(tab, "#id=made-2")
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_the_page_has_not_complained(tab):
    assert tab.problems == []


@needs_browser
@pytest.mark.slow
def test_seven_thousand_questions_keep_to_size_and_time(tmp_path):
    path = tmp_path / "evaluation.html"
    pages.write(path, pages.rows(pages.QUESTIONS, pages.IMAGES, 250))
    assert path.stat().st_size < 25_000_000
    assert min(pages.opened(path, 3)["main_thread"]) < 1

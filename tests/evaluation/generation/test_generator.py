"""What is read of an answer, and that nothing but the request decides how it is made."""

import pytest
from transformers import GenerationConfig

from workflow_scripts.evaluation.generation import cache, queue
from workflow_scripts.evaluation.generation.generator import Generator
from workflow_scripts.evaluation.generation.stopping import GrowingAnswer
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue


def texts(generator: Generator, asked, **options) -> list[list[str]]:
    return [[one.text for one in row] for row in generator.answer(asked.records, asked.folder, **options)]


@pytest.mark.parametrize(
    ("budget", "pass_tokens"), [(1, 4096), (260, 40), (2**17, 4096)], ids=["alone", "some", "all"]
)
def test_every_question_gets_the_tokens_that_generate_gives_it_alone(asked, budget, pass_tokens, monkeypatch):
    monkeypatch.setattr(queue, "PASS_TOKENS", pass_tokens)
    found = asked.generator(budget).answer(asked.records, asked.folder)
    assert [(row[0].text, row[0].tokens) for row in found] == asked.one_by_one
    assert len({row[0].text for row in found}) > 5 and len({row[0].tokens for row in found}) > 3


def test_each_image_and_prefix_runs_once_however_little_fits_into_a_batch(dense, monkeypatch):
    grids, prefixes = [], []
    tower, prefill = dense.model.model.visual.forward, queue.prefill

    def seen(pixels, grid_thw, **rest):
        grids.extend(grid_thw.tolist())
        return tower(pixels, grid_thw, **rest)

    def filled(model, inputs):
        prefixes.extend(inputs["input_ids"].tolist())
        return prefill(model, inputs)

    monkeypatch.setattr(dense.model.model.visual, "forward", seen)
    monkeypatch.setattr(queue, "prefill", filled)
    dense.generator(1).answer(dense.records, dense.folder)
    shown = {tuple(record["images"]) for record in dense.records}
    assert len(grids) == sum(map(len, shown))
    assert len(prefixes) == len(shown)


@pytest.mark.parametrize(("budget", "samples"), [(260, 1), (600, 3), (2**17, 2)])
def test_a_batch_stays_within_its_budget_and_rows_that_have_ended_leave_it(
    dense, budget, samples, monkeypatch
):
    sizes = []
    write = cache.Batch.write

    def watched(batch, model, tokens):
        write(batch, model, tokens)
        sizes.append((len(batch), batch.columns))

    monkeypatch.setattr(cache.Batch, "write", watched)
    found = dense.generator(budget).answer(dense.records, dense.folder, temperature=1.0, samples=samples)
    assert [len(row) for row in found] == [samples] * len(dense.records)
    assert max(rows * columns for rows, columns in sizes) <= budget
    assert len({rows for rows, _ in sizes}) > 2  # they leave one after the other, and not together


def test_a_question_that_does_not_fit_into_the_budget_is_asked_alone(dense, monkeypatch):
    rows = []
    write = cache.Batch.write
    monkeypatch.setattr(
        cache.Batch, "write", lambda batch, *rest: rows.append(len(batch)) or write(batch, *rest)
    )
    assert len(dense.generator(1).answer(dense.records, dense.folder, samples=2)) == len(dense.records)
    assert set(rows) == {2}


def test_samples_depend_on_the_seed_and_the_record_and_not_on_what_is_asked_beside(asked):
    everything = texts(asked.generator(), asked, temperature=1.0, samples=3, seed=5)
    assert everything == texts(asked.generator(300), asked, temperature=1.0, samples=3, seed=5)
    generator = asked.generator()
    for index in (1, 12):
        alone = generator.answer([asked.records[index]], asked.folder, temperature=1.0, samples=2, seed=5)
        assert [one.text for one in alone[0]] == everything[index][:2]
    assert sum(len(set(row)) == 3 for row in everything) > 10
    assert everything[1] != everything[7]  # the same question, of another record
    other = texts(asked.generator(), asked, temperature=1.0, samples=3, seed=6)
    assert sum(a != b for a, b in zip(everything, other, strict=True)) > 10


def test_records_come_as_they_are_answered(dense):
    streamed = list(dense.generator(260).stream(dense.records, dense.folder))
    indices = [index for index, _ in streamed]
    assert sorted(indices) == list(range(len(dense.records)))
    assert [row for _, row in sorted(streamed)] == dense.generator().answer(dense.records, dense.folder)


def test_blank_images_are_others(dense):
    blank = texts(dense.generator(), dense, blank=True)
    seen = texts(dense.generator(), dense)
    assert blank[:12] != seen[:12]
    assert blank[12:] == seen[12:]  # without an image


def test_it_runs_in_half_precision(dense):
    half = standins.untrained_model(VERSIONS["4.1v"]).bfloat16().eval()
    generator = Generator(half, dense.dialogue.processor, dense.dialogue, 400, 6)
    assert all(row[0].text for row in generator.answer(dense.records, dense.folder, temperature=0.7))


def test_no_records_have_no_answers(dense):
    assert dense.generator().answer([], dense.folder) == []


@pytest.fixture(
    params=[(version, mode) for version in VERSIONS for mode in ("thinking", "base")], ids="_".join
)
def form(request):
    """(a generator of the stand-in, the answer format)"""
    version, mode = VERSIONS[request.param[0]], request.param[1]
    processor = standins.processor(version)
    dialogue = Dialogue(processor, request.param[0], mode)
    model = standins.untrained_model(version)
    return Generator(model, processor, dialogue, 2**17, 20), version.answer_format(mode)


def written(generator: Generator, text: str) -> GrowingAnswer:
    answer = GrowingAnswer(generator.limits, thinking=False)
    for token in generator.processor.tokenizer.encode(text, add_special_tokens=False):
        if not answer.ended:
            answer.take(token)
    return answer


@pytest.mark.parametrize("end", ["<|user|>", "<|endoftext|>", "<|observation|>", ""])
def test_an_answer_is_readable_whichever_token_ended_it(form, end):
    generator, answer_format = form
    text = answer_format.write("Left lung", "The left side is dark.")
    if end == "" and not text.endswith("</answer>"):
        pytest.skip("no tag of this form ends generation")
    generation = generator.read(written(generator, text + end))
    assert (generation.text, generation.truncated) == (text, False)
    assert answer_format.read(generation.text) == "Left lung"


def test_a_cut_off_answer_is_truncated(form):
    generator, _ = form
    assert generator.read(written(generator, "<think>" + "The left " * 20)).truncated


def test_a_thought_is_cut_at_its_budget_and_the_answer_read(form, monkeypatch, tmp_path):
    generator, answer_format = form
    if not answer_format.thinking:
        pytest.skip("no thoughts")
    made = Generator(generator.model, generator.processor, generator.dialogue, 2**17, 40, thought_budget=6)
    encode = generator.processor.tokenizer.encode
    # What the model would write, as long as it is let; the thought has no end.
    thinks = encode("<think>" + "dark" * 6, add_special_tokens=False)[:7]
    answers = encode(
        "Left lung</answer><|user|>" if answer_format.tagged else "Left lung<|user|>",
        add_special_tokens=False,
    )
    closing = len(encode(answer_format.after_thought, add_special_tokens=False))
    script = iter([*thinks, *[thinks[-1]] * closing, *answers])
    monkeypatch.setattr(
        "workflow_scripts.evaluation.generation.sampling.likeliest", lambda logits: [next(script)]
    )
    record = {"id": "a", "messages": [{"role": "user", "content": "What?"}], "images": []}
    ((generation,),) = made.answer([record], tmp_path)
    assert (generation.forced, generation.truncated) == (True, False)
    assert answer_format.read(generation.text) == "Left lung"
    assert generation.tokens == 7 + closing + len(answers) - answer_format.tagged


LEAKING = {
    "temperature": 0.8,
    "top_p": 0.6,
    "top_k": 2,
    "do_sample": True,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 8,
    "suppress_tokens": [5],
}


def test_the_checkpoints_generation_settings_are_recorded_and_change_nothing(asked):
    plain = GenerationConfig()
    asked.model.generation_config = plain
    before = texts(asked.generator(), asked)
    assert asked.generator().checkpoint_settings == {}
    asked.model.generation_config = GenerationConfig(**LEAKING)
    assert asked.generator().checkpoint_settings == LEAKING
    assert texts(asked.generator(), asked) == before
    asked.model.generation_config = plain

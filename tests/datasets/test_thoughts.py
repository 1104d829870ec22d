"""Thoughts say only what the row says, and the answer's words only where a fact of the row states them."""

from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.datasets.records import Example
from workflow_scripts.datasets.thoughts import thought


def example(**fields) -> Example:
    base = {
        "id": "1",
        "source": "s",
        "split": "train",
        "image": "i",
        "image_id": "i",
        "question": "?",
        "answer": "a",
    }
    return Example(**{**base, "answer_type": "open", **fields})


def test_a_row_that_says_nothing_has_no_thought():
    assert thought(example()) == ""


def test_the_fact_that_is_the_answer_comes_last():
    row = example(answer="MRI", modality="MRI", organ="Brain_Tissue", question_type="Modality")
    assert (
        thought(row)
        == "The question is about the imaging modality. It shows: Brain Tissue. The image is of the modality MRI."
    )


def test_triples_are_facts_but_their_blanks_are_not():
    row = example(facts={"triple": ["vhead", "function", "ktail"]}, language="en")
    assert thought(row) == "What is asked of it is: function."
    assert thought(example(facts={"triple": ["vhead", "_", "_"]})) == ""
    assert (
        thought(example(facts={"triple": ["肝脏", "功能", "_"]}, language="zh"))
        == "所问的对象是肝脏。所问的内容是：功能。"
    )


words = st.text(alphabet="abcdefgh", min_size=4, max_size=8)


@given(
    answer=words,
    modality=st.just("") | words,
    organ=st.just("") | words,
    kind=st.sampled_from(["", "Modality", "PRES", "what"]),
)
def test_an_answer_that_no_fact_states_is_not_in_the_thought(answer, modality, organ, kind):
    text = thought(example(answer=answer, modality=modality, organ=organ, question_type=kind))
    if answer in text:
        assert answer in f"{modality} {organ}" or answer in thought(
            example(question_type=kind, modality="#", organ="#")
        )

"""Prompts are grouped by what they have in common."""

from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.evaluation.generation.prompts import Prompt, groups

IMAGE = 9
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@st.composite
def prompts(draw):
    found = []
    for index in range(draw(st.integers(1, 12))):
        ids, images = draw(TOKENS), []
        for image in draw(st.lists(st.sampled_from("ab"), max_size=2)):
            ids, images = [*ids, IMAGE, *draw(TOKENS)], [*images, image]
        found.append(Prompt(index, str(index), ids, tuple(images)))
    return found


@given(prompts())
def test_every_prompt_goes_on_from_the_longest_prefix_that_its_group_has_in_common(given):
    found = groups(given, IMAGE)
    assert sorted(prompt.index for group in found for prompt in group.prompts) == list(range(len(given)))
    for group in found:
        rests = [prompt.ids[len(group.prefix) :] for prompt in group.prompts]
        assert all(prompt.ids[: len(group.prefix)] == group.prefix for prompt in group.prompts)
        assert all(list(prompt.images) == group.images for prompt in group.prompts)
        assert group.prefix.count(IMAGE) == len(group.images) and all(IMAGE not in rest for rest in rests)
        if group.alone:
            assert rests == [[]]
        else:
            assert all(rests) and (len({rest[0] for rest in rests}) > 1 or [] in [rest[1:] for rest in rests])


def test_questions_about_an_image_come_together_in_the_order_of_the_images():
    asked = [
        Prompt(0, "0", [1, IMAGE, 2], ("b",)),
        Prompt(1, "1", [1], ()),
        Prompt(2, "2", [1, IMAGE, 2, 3], ("b",)),
    ]
    assert [[prompt.index for prompt in group.prompts] for group in groups(asked, IMAGE)] == [[0, 2], [1]]


def test_images_after_other_words_are_apart():
    asked = [Prompt(0, "0", [1, IMAGE, 2], ("a",)), Prompt(1, "1", [3, IMAGE, 2], ("a",))]
    assert len(groups(asked, IMAGE)) == 2

"""Tokens are drawn by their probabilities, from numbers that each row has for itself."""

import random
from collections import Counter

import pytest
import torch

from workflow_scripts.evaluation.generation.sampling import chance, drawn, likeliest


def test_the_likeliest_is_taken():
    assert likeliest(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])) == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_probabilities_at_the_temperature(temperature):
    logits = torch.tensor([1.0, 0.0, float("-inf"), 2.0, -1.0])
    rows = [random.Random(number) for number in range(20_000)]
    counts = Counter(drawn(logits.expand(len(rows), -1), temperature, rows))
    expected = (logits / temperature).softmax(-1)
    for token, share in enumerate(expected.tolist()):
        assert counts[token] / len(rows) == pytest.approx(share, abs=0.012)
    assert 2 not in counts


class Fixed(random.Random):
    def __init__(self, number):
        self.number = number

    def random(self):
        return self.number


def test_no_number_draws_what_has_no_probability():
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]])
    for number, token in ((0.0, 1), (0.4999, 1), (0.5001, 2), (1 - 2**-53, 2)):
        assert drawn(logits, 1.0, [Fixed(number)]) == [token]


def test_numbers_depend_on_seed_question_and_sample():
    keys = [(seed, key, sample) for seed in (0, 1) for key in ("a", "a 1", "1 a") for sample in (0, 1)]
    assert len({chance(*key).random() for key in keys}) == len(keys)
    assert chance(1, "a", 0).random() == chance(1, "a", 0).random()

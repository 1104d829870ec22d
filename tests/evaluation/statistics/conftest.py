"""Clustered answers with a known truth."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def simulated():
    """`draw(images, questions, share, correlation, repetitions, seed)`: sums and sizes, [repetitions, images] each.

    An image has 1 + Poisson(questions - 1) questions, each answered rightly with the image's own probability, which is
    Beta-distributed around `share`: two answers about an image then correlate by `correlation`.
    """

    def draw(images, questions, share=0.75, correlation=0.2, repetitions=2_000, seed=0):
        chance = np.random.default_rng(seed)
        sizes = 1 + chance.poisson(questions - 1, (repetitions, images))
        concentration = (1 - correlation) / correlation
        own = chance.beta(share * concentration, (1 - share) * concentration, sizes.shape)
        return chance.binomial(sizes, own).astype(float), sizes.astype(float)

    return draw

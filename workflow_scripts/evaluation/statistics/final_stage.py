"""Which of a run's models to keep: the simplest that is not beaten."""

from collections.abc import Mapping
from typing import Any, TypedDict

from numpy.typing import ArrayLike, NDArray

from workflow_scripts.evaluation.statistics.comparisons import Comparison, beyond_noise, compare, verdict

ROUNDING = 1e-12  # what a sum of equal scores may differ by


class Step(TypedDict):
    """Whether a further stage was gone on to, for its `gain` over the stage kept so far."""

    stage: str
    over: str
    gain: Comparison
    taken: bool
    beyond_noise: bool
    text: str


class Choice(TypedDict):
    """The stage that was kept, and how it came to that."""

    stage: str
    steps: list[Step]


def final_stage(scores: Mapping[str, ArrayLike], clusters: NDArray[Any], seed: int = 0) -> Choice:
    """Choose among stages by their scores [n] on the same validation rows, given from the simplest on.

    A further stage is gone on to where its mean paired gain over the one kept so far is above 0; a tie keeps the
    simpler. The gain itself decides, not its interval: nothing is claimed by going on, and of two models that are to
    be told apart by these rows alone the better one here is the likelier to be better. `beyond_noise` says whether
    more could be claimed.
    """
    (kept, best), *further = scores.items()
    steps: list[Step] = []
    for stage, found in further:
        gain = compare(best, found, clusters, seed)
        taken = (gain["difference"]["value"] or 0) > ROUNDING
        steps.append(
            {
                "stage": stage,
                "over": kept,
                "gain": gain,
                "taken": taken,
                "beyond_noise": beyond_noise(gain),
                "text": verdict(gain, stage),
            }
        )
        if taken:
            kept, best = stage, found
    return {"stage": kept, "steps": steps}

"""What thoughts do to accuracy: none, built from annotations, and these with less weight in the loss."""

import sys

from benchmarks import accuracy
from benchmarks.accuracy import Arm

WEIGHTS = [0.3, 0.1, 0.03]


def arms(weights: list[float]) -> list[Arm]:
    """Base mode first, which the others are compared with."""
    return [
        Arm("base", "base", {}),
        Arm("thinking, empty thoughts", "thinking", {"data": {"thoughts": "empty"}}),
        *(
            Arm(
                f"thinking, facts, thought {weight:g}",
                "thinking",
                {"data": {"thoughts": "facts"}, "sft": {"loss_weights": {"thought": weight}}},
            )
            for weight in (1.0, *weights)
        ),
    ]


def main() -> int:
    parser = accuracy.parser("thoughts", __doc__)
    parser.add_argument(
        "--weights",
        type=float,
        nargs="*",
        default=WEIGHTS,
        help="of a thought's token beside an answer's, besides 1",
    )
    options = parser.parse_args()
    return accuracy.main("Thoughts and accuracy", arms(options.weights), options)


if __name__ == "__main__":
    sys.exit(main())

"""What many rows of few images in an optimiser step do to accuracy: the same number of steps, of one row an image and more."""

import sys

from benchmarks import accuracy
from benchmarks.accuracy import SETTINGS, Arm

ROWS_PER_IMAGE = [1, 4, 8, 14]


def arms(rows_per_image: list[int]) -> list[Arm]:
    """Base mode; a step has as many images as rows of one leave room for."""
    rows = SETTINGS["sft"]["batch_size"]
    return [
        Arm(
            f"{most} rows of an image",
            "base",
            {"sft": {"rows_per_image": most, "images_per_step": rows // most}},
        )
        for most in rows_per_image
    ]


def main() -> int:
    parser = accuracy.parser("batches", __doc__)
    parser.add_argument("--rows_per_image", type=int, nargs="+", default=ROWS_PER_IMAGE, help="each an arm")
    options = parser.parse_args()
    return accuracy.main("Rows of an image in a step, and accuracy", arms(options.rows_per_image), options)


if __name__ == "__main__":
    sys.exit(main())

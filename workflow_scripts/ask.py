"""Ask one model of a run all test questions: `results/answers/{run}/{model}.{variant}.jsonl`.

Nothing is scored. What a model has answered before, in this run or another, it is not asked again.
"""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags
from workflow_scripts.evaluation.questions import MODELS, VARIANTS


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser)
    parser.add_argument(
        "--model",
        required=True,
        choices=MODELS,
        help="of the run; final: the one of sft and dpo that its validation rows choose",
    )
    parser.add_argument("--variant", default="original", choices=VARIANTS, help="of the pictures")
    options = parser.parse_args(arguments)
    from workflow_scripts.stages import ask

    run = flags.run_of(options)
    settings, layout = flags.stage_inputs(options, "ask", run)
    ask.stage(settings, layout, run, options.model, options.variant)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

"""Ask a model: all test questions of a run, or your own about a picture.

As a stage of the chain (--dataset, --model_version, --mode, and --model sft) it writes
`results/answers/{run}/{model}.{variant}.jsonl`; nothing is scored, and what a model has answered before, in this run or
another, it is not asked again. With a folder as --model, --image and a question it answers in the terminal, where
further questions about the same picture can follow.
"""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.base.errors import UserError, unknown
from workflow_scripts.configuration import flags
from workflow_scripts.evaluation.questions import MODELS, VARIANTS


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser, required=False)
    parser.add_argument(
        "--model",
        required=True,
        help=f"of the run: {', '.join(MODELS)} (the one of sft and dpo that its validation rows choose); or the folder of a "
        "model or an adapter",
    )
    parser.add_argument("--variant", default="original", choices=VARIANTS, help="of the pictures of a run")
    parser.add_argument(
        "--image",
        action="append",
        type=Path,
        default=[],
        help="with a folder as --model: a picture, DICOM too; may stand several times",
    )
    parser.add_argument(
        "question", nargs="?", default="", help="with a folder as --model: the first question"
    )
    parser.add_argument("--show_thought", action="store_true", help="print what the model thought, too")
    flags.add_prompt_style(parser)
    options = parser.parse_args(arguments)
    if options.image or options.question:
        from workflow_scripts.stages import talk

        path = flags.model_folder(options.model)
        run = flags.run_of_model(options, path)
        settings, layout = flags.stage_inputs(options, "ask", run)
        with talk.examined(settings, layout, run, path, options.prompt_style) as place:
            talk.in_terminal(place, options.image, options.question, options.show_thought)
        return 0
    if options.model not in MODELS:
        raise UserError(f"--model {unknown(options.model, MODELS)}; or ask it about an --image")
    from workflow_scripts.stages import ask

    run = flags.run_of(options)
    settings, layout = flags.stage_inputs(options, "ask", run)
    ask.stage(settings, layout, run, options.model, options.variant)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

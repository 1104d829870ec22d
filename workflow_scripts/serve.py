"""Ask a model about pictures on a page of this machine: http://127.0.0.1:7860, for nobody else."""

import sys

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    flags.add_run_flags(parser, required=False)
    parser.add_argument(
        "--model", required=True, type=flags.model_folder, help="the folder of a model or an adapter"
    )
    parser.add_argument("--port", type=int, default=7860)
    flags.add_prompt_style(parser)
    options = parser.parse_args(arguments)
    run = flags.run_of_model(options, options.model)
    settings, layout = flags.stage_inputs(options, "ask", run)
    from workflow_scripts.stages import serve, talk

    serve.installed()
    with talk.examined(settings, layout, run, options.model, options.prompt_style) as place:
        serve.serve(place, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

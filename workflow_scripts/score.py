"""Score an answer file, of this project, LLaVA-Med, MedEvalKit, lmms-eval or VLMEvalKit, by all protocols at once."""

import sys
from pathlib import Path

from workflow_scripts.base import cli
from workflow_scripts.configuration import flags


def main(arguments: list[str] | None = None) -> int:
    parser = flags.stage_parser(__doc__)
    parser.add_argument(
        "--answers", type=Path, required=True, help="the file: .jsonl, .json, .xlsx, .tsv or .csv"
    )
    flags.add_run_flags(parser, required=False)
    parser.add_argument("--output", type=Path, help="a JSON to write everything to as well")
    options = parser.parse_args(arguments)
    (dataset,) = flags.run_names(options, None, ("dataset",))
    settings, layout = flags.settings_and_layout(options)
    from workflow_scripts.stages import score

    version, mode = (vars(options).get(name, "") for name in ("model_version", "mode"))
    score.command(settings, layout, options.answers, dataset, version, mode, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

"""Run Snakemake itself as a small SLURM job, which puts itself back into the queue before its time is up.

`python -m workflow_scripts.submit --partition cpu -- --profile profiles/slurm`: what follows `--` is Snakemake's. Login
nodes end long processes; this one outlives its time limit, and started again waits for the jobs that it had submitted.
"""

import sys

from workflow_scripts.base import cli


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    for flag in ("partition", "account", "qos"):
        parser.add_argument(f"--{flag}", help="of the job that Snakemake runs in; empty: the cluster's own")
    parser.add_argument("--minutes", type=int, default=1440, help="after which it starts again")
    parser.add_argument("--inside", action="store_true", help="used by the job itself")
    parser.add_argument("snakemake", nargs="*", help="the arguments of Snakemake, after --")
    options = parser.parse_args(arguments)
    from workflow_scripts.stages import submit

    if options.inside:
        return submit.inside(options.snakemake)
    where = {flag: getattr(options, flag) for flag in ("partition", "account", "qos")}
    submit.submit(options.snakemake, options.minutes, {flag: name for flag, name in where.items() if name})
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))

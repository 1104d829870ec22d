"""torchrun, which ends no sooner than its processes: PyTorch's leaves them behind where a signal comes while it ends.

So it does on another node than that of a process which has failed, where the end of their meeting and SLURM's signal come
together. One that hangs would then hold its GPU, for SLURM without cgroups does not find what has lost its parent.
"""

import signal

import psutil

SHUTDOWN_SECONDS = 180  # that processes have to save after a signal: a checkpoint of full training is large
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def main() -> None:
    """Run PyTorch's, and wait for what it has left; what does not end by itself is killed."""
    from torch.distributed import run

    try:
        run.main()
    finally:
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)
        _, hanging = psutil.wait_procs(psutil.Process().children(), timeout=SHUTDOWN_SECONDS)
        for process in hanging:
            process.kill()


if __name__ == "__main__":
    main()

"""The exceptions whose messages are meant for the person at the keyboard."""

import signal

STOPPING = (signal.SIGTERM, signal.SIGUSR1)


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do."""


class Terminated(BaseException):
    """A signal from scancel, or at a time limit: no Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int, state: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{state}")
        self.status = 128 + number  # the exit status, as a shell has it

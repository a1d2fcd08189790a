"""What an entry point reports as one line, in place of a traceback."""

import signal


class UserError(ValueError):
    """A mistake that the user can mend; exit code 2.

    The message names the thing, the place and the remedy.
    """


class FailureError(RuntimeError):
    """Work that was asked for rightly and did not succeed; exit code 1."""


class Interrupted(Exception):  # noqa: N818
    """A signal ended the command in good order; exit code 128 + the signal's number."""

    def __init__(self, number: signal.Signals, message: str) -> None:
        super().__init__(message)
        self.code = 128 + number


def first_line(error: Exception) -> str:
    """What an exception of a library says, without the traceback that MindSpore writes below it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

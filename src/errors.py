"""The errors that a command reports as one line instead of a traceback."""

import signal


class UserError(ValueError):
    """A mistake that the user can mend; exit code 2.

    The message names the thing, the place and the remedy.
    """


class RunError(RuntimeError):
    """A valid request that failed while it ran; exit code 1."""


class Interrupted(Exception):  # noqa: N818
    """A signal ended the command in good order; exit code 128 + the signal's number."""

    def __init__(self, number: signal.Signals, message: str) -> None:
        super().__init__(message)
        self.code = 128 + number


def short_message(error: BaseException) -> str:
    """Return the first line of an exception's message: MindSpore appends its own call stack."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

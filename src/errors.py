"""What an entry point reports as one line, in place of a traceback."""


class UserError(ValueError):
    """A mistake that the user can mend; exit code 2.

    The message names the thing, the place and the remedy.
    """


class FailureError(RuntimeError):
    """Work that was asked for rightly and did not succeed; exit code 1."""

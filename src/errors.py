"""The errors that a command reports as one line instead of a traceback."""

import re
import signal
from collections.abc import Sequence

# control codes, separators of lines and paragraphs, halves of characters, changes of direction
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


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


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the first of several names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def difference(first: Sequence[str], second: Sequence[str], of_first: str, of_second: str) -> str:
    """Return in words in which of two lists of names something is that the other lacks."""
    parts = []
    for own, other, where in ((first, second, of_first), (second, first, of_second)):
        missing = sorted(set(own) - set(other))
        parts += [f"only in {where}: {first_few(missing)}"] if missing else []
    return "; ".join(parts) or "the same ones in another order"


def short_value(value: object, longest: int = 100) -> str:
    """Return a value as it is written in Python, cut where that is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, lists in lists
        text = f"a {type(value).__name__} too large to print"
    return text if len(text) <= longest else f"{text[:longest]}..."


def plain(text: str) -> str:
    """Escape what is no text but would command a terminal or break a line; newline and tab stay."""
    return CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else repr(match[0])[1:-1], text)


def one_line(text: str, longest: int = 1000) -> str:
    """Return a message as one printable line; of a longer one the middle is cut, for the remedy is at its end."""
    line = plain(" ".join(text.split()))
    half = longest // 2
    return line if len(line) <= longest else f"{line[:half]} [...] {line[-half:]}"

"""Arguments, exit codes and the log of every command.

A command's module imports this one alone at its top, so that a signal during any other import ends in one line.
"""

import argparse
import errno
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional, TextIO, Union

from src.errors import Interrupted, RunError, UserError, one_line, plain
from src.runtime.launcher import follow_launcher
from src.runtime.signals import STOP

OVERRIDE = re.compile(r"\w+\.\w+=")


class Parser(argparse.ArgumentParser):
    """Parse a command's arguments; a wrong one is a `UserError`.

    Args:
        files: What may stand beside overrides, such as "IMAGE"; parsed to `files`. None for nothing.
        config: Whether there is --config.
    """

    def __init__(self, description: Optional[str], files: Optional[str] = None, config: bool = True) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if config:
            self.add_argument("--config", metavar="FILE", help="configuration, YAML")
        self.add_argument("--device_target", metavar="CPU|Ascend", help="overrides runtime.device_target")
        self.takes_files = files is not None
        metavar, what = "section.key=value", "override any configuration key"
        if files is not None:
            metavar, what = f"{files}|{metavar}", f"what to read; or {what}"
        self.add_argument("overrides", nargs="*", metavar=metavar, help=what)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse arguments, overrides and options in any order.

        Returns:
            The arguments; `overrides` maps each "section.key" to its value.
        """
        args = self.parse_intermixed_args(argv)
        from src.config import read_overrides  # after --help, which needs nothing that may not be installed
        from src.runtime.distributed import check_launched

        check_launched(getattr(args, "distribute", False))
        texts = list(args.overrides)
        for name, values in list(vars(args).items()):
            if name != "overrides" and isinstance(values, list):  # an option of several values takes all that follows
                named = [value for value in values if not OVERRIDE.match(value)]
                if values and not named:
                    self.error(f"--{name} names nothing")
                texts += filter(OVERRIDE.match, values)
                setattr(args, name, named)
        if self.takes_files:
            args.files = [text for text in texts if not OVERRIDE.match(text)]
            texts = [text for text in texts if OVERRIDE.match(text)]
        args.overrides = read_overrides(texts)
        if args.device_target is not None:
            args.overrides["runtime.device_target"] = args.device_target
        return args

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run a command and exit with 0, or, after one line, 2 for a user's mistake, 1 for a failure, 128 + a signal."""
    code = 0
    STOP.install()
    follow_launcher(signal.SIGKILL)
    sys.stdout = PlainStream(sys.stdout)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries to their developers: they stand in front of our lines
    try:
        main(sys.argv[1:])
        STOP.is_ending = True
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output wants no more of it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except Interrupted as stopped:
        if str(stopped):  # the first of several processes speaks for all
            _report_end(plain(str(stopped)))
        code = stopped.code
    except BaseException as error:
        if STOP.requested is None and not isinstance(error, KeyboardInterrupt):
            known = as_known(error)
            if known is None:
                raise
            STOP.close()
            _report_end(f"error: {one_line(str(known))}")
            sys.exit(2 if isinstance(known, UserError) else 1)
        number = STOP.requested or signal.SIGINT  # an interrupted import may raise any other error
        _report_end(f"error: stopped by {number.name}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + number)  # the interpreter's own shutdown crashes where MindSpore is imported in part
    STOP.close()
    sys.exit(code)


class PlainStream:
    """A text stream that escapes control codes, and characters that its encoding lacks."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        return self.stream.write(plain(text).encode(encoding, "backslashreplace").decode(encoding))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


REMEDIES = {
    errno.EACCES: "give this user the right to it, or name another",
    errno.EPERM: "give this user the right to it, or name another",
    errno.EROFS: "name a folder that can be written",
    errno.ENOSPC: "make room, or name a folder on another disk",
    errno.EDQUOT: "make room, or name a folder on another disk",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EIO: "the disk or the network behind it fails; name another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}


def as_known(error: BaseException) -> Optional[Union[UserError, RunError]]:
    """Return an exception as the error that is told in one line; None for one that is a fault of this program."""
    if isinstance(error, (UserError, RunError)):
        return error
    if isinstance(error, MemoryError):
        return RunError("the memory does not suffice; lower data.batch_size, data.workers or the sizes of the model")
    if isinstance(error, RecursionError):
        return UserError("the configuration or a file is nested too deeply; write it flat")
    if isinstance(error, UnicodeError):
        return UserError(f"a name or a file is not UTF-8 text: {error}; rename or rewrite it")
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] != "src":
        return UserError(
            f"the package {error.name} is not installed for {sys.executable}; activate the environment that has it"
            " (. .venv/bin/activate), or: pip install -r requirements.txt"
        )
    if not isinstance(error, OSError) or not error.errno:
        return None
    names = " -> ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))
    )
    remedy = REMEDIES.get(error.errno, "see that it is there and can be used")
    kind = RunError if error.errno in OF_THE_MACHINE else UserError
    return kind(f"{names or 'a file'}: {error.strerror}; {remedy}")


def _report_end(text: str) -> None:
    """Write why the command ended to stderr and to the log file, if there is one."""
    print(text, file=sys.stderr)
    log = logging.getLogger("skipvit")
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), None))


def nonnegative_int(text: str) -> int:
    """Parse an option's number: 0, 1, 2, ..."""
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 999999")
    return int(text)


def positive_int(text: str) -> int:
    """Parse an option's number: 1, 2, 3, ..."""
    if nonnegative_int(text) == 0:
        raise argparse.ArgumentTypeError("it must be 1 or more, not 0")
    return int(text)


def nonnegative_float(text: str) -> float:
    """Parse an option's number, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


class PlainFormatter(logging.Formatter):
    """Format records without control codes of the names in them."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def start_log(file: Optional[Path] = None, quiet: bool = False) -> None:
    """Log to stdout and to a file; only warnings if `quiet`."""
    log = logging.getLogger("skipvit")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers = [logging.StreamHandler(sys.stdout)]
    if file is not None:
        log.addHandler(logging.FileHandler(file, encoding="utf-8"))
    for handler, form in zip(log.handlers, ("%(message)s", "%(asctime)s %(message)s")):
        handler.setFormatter(PlainFormatter(form))

"""What the entry points share: arguments, and a user's mistake as one line with exit code 2."""

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Optional

from src.errors import FailureError, Interrupted, UserError
from src.stop import STOP

OVERRIDE = re.compile(r"\w+\.\w+=")


class Parser(argparse.ArgumentParser):
    """The arguments of an entry point; a wrong one is a `UserError`.

    Args:
        files: What is named beside overrides, such as "IMAGE"; it is parsed to `files`. None where nothing is.
        config: Whether there is --config.
    """

    def __init__(self, description: str, files: Optional[str] = None, config: bool = True) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if config:
            self.add_argument("--config", metavar="FILE", help="configuration, YAML")
        self.add_argument("--device_target", metavar="CPU|Ascend", help="overrides runtime.device_target")
        self.takes_files = files is not None
        metavar, what = "section.key=value", "override any configuration key"
        if files is not None:
            metavar, what = f"{files}|{metavar}", f"what to look at; or {what}"
        self.add_argument("overrides", nargs="*", metavar=metavar, help=what)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse arguments, overrides and options in any order."""
        args = self.parse_intermixed_args(argv)
        for name, values in list(vars(args).items()):
            if name != "overrides" and isinstance(values, list):  # an option of several values takes all that follows
                named = [value for value in values if not OVERRIDE.match(value)]
                if values and not named:
                    self.error(f"--{name} names nothing")
                args.overrides += filter(OVERRIDE.match, values)
                setattr(args, name, named)
        if self.takes_files:
            args.files = [text for text in args.overrides if not OVERRIDE.match(text)]
            args.overrides = [text for text in args.overrides if OVERRIDE.match(text)]
        if args.device_target is not None:
            args.overrides.append(f"runtime.device_target={args.device_target}")
        return args

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run an entry point and exit: 0, or, after one line, 2 for a user's mistake, 1 for a failure, 128 + a signal."""
    code = 0
    STOP.watch()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output wants no more of it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except (UserError, FailureError) as error:
        _say(f"error: {' '.join(str(error).split())}")
        code = 2 if isinstance(error, UserError) else 1
    except Interrupted as stopped:
        _say(str(stopped))
        code = stopped.code
    except BaseException as error:
        if STOP.asked is None and not isinstance(error, KeyboardInterrupt):
            raise
        number = STOP.asked or signal.SIGINT  # an import that is interrupted makes another error of it
        _say(f"error: stopped by {number.name}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + number)  # Python's own end crashes where MindSpore is imported in part
    sys.exit(code)


def _say(text: str) -> None:
    """Say why the command ended, on stderr and in the log file, if there is one."""
    print(text, file=sys.stderr)
    log = logging.getLogger("skipvit")
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), None))


def whole(text: str) -> int:
    """A number of an option: 0, 1, 2, ..."""
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 999999")
    return int(text)


def positive(text: str) -> int:
    """A number of an option: 1, 2, 3, ..."""
    if whole(text) == 0:
        raise argparse.ArgumentTypeError("it must be 1 or more, not 0")
    return int(text)


def real(text: str) -> float:
    """A number of an option, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def start_log(file: Optional[Path] = None, quiet: bool = False) -> None:
    """Log to stdout, and to a file; if `quiet`, only warnings."""
    log = logging.getLogger("skipvit")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers = [logging.StreamHandler(sys.stdout)]
    if file is not None:
        log.addHandler(logging.FileHandler(file, encoding="utf-8"))
        log.handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(message)s"))

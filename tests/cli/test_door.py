"""What a command ends with, whatever stops it: one printable line of bounded length."""

import errno
import io
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from src import cli
from src.errors import RunError, UserError, one_line, plain
from tests.helpers.commands import ROOT


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), UserError,
         "a/b: Permission denied; give this user the right to it, or name another"),
        (OSError(errno.ENOSPC, "No space left on device", b"a\xe9"), RunError,
         "a\udce9: No space left on device; make room, or name a folder on another disk"),
        (OSError(errno.EIO, "Input/output error"), RunError, "a file: Input/output error; the disk or the network"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), UserError, "a -> b: Invalid cross-device"),
        (OSError("cannot identify image file"), None, ""),
        (MemoryError(), RunError, "the memory does not suffice; lower data.batch_size"),
        (RecursionError(), UserError, "nested too deeply"),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"), UserError, "is not UTF-8 text"),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), UserError, "pip install -r requirements.txt"),
        (ModuleNotFoundError("No module named 'src.x'", name="src.x"), None, ""),
        (KeyError("x"), None, ""),
    ],
)  # fmt: skip
def test_what_the_world_does_is_one_line_and_what_we_do_is_a_traceback(error, kind, message):
    known = cli.as_known(error)
    assert type(known) is (kind or type(None))
    assert message in str(known)


def test_lines_are_printable_and_bounded():
    assert plain("a\tb\nü € 日本\u3000") == "a\tb\nü € 日本\u3000"
    assert plain("\x1b[2J\x07\x9b\u2028\u202e\udce9\x00") == r"\x1b[2J\x07\x9b\u2028\u202e\udce9\x00"
    long = one_line("begins " + "x\n" * 100_000 + " remedy")
    assert len(long) < 1100
    assert long.startswith("begins x x")
    assert long.endswith(" remedy")


def test_nothing_raw_reaches_terminal_or_log(tmp_path, monkeypatch):
    raw = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", cli.PlainStream(raw))
    cli.start_log(tmp_path / "log")
    try:
        print("run \x1b[2J \udce9 日")
        logging.getLogger("skipvit").warning("file %s", "\x1b]0;owned\x07")
    finally:
        logging.getLogger("skipvit").handlers.clear()
    raw.flush()
    assert raw.buffer.getvalue() == b"run \\x1b[2J \\udce9 \\u65e5\nfile \\x1b]0;owned\\x07\n"
    assert (tmp_path / "log").read_text().endswith(" file \\x1b]0;owned\\x07\n")


def test_outside_the_environment_a_command_says_how_to_come_in(tmp_path):
    """Python without its packages; --help needs none."""
    command = [sys.executable, "-S", "-E", str(ROOT / "train.py")]
    done = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command, "--config", "x"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install -r requirements.txt" in done.stderr


def test_without_a_home_the_cache_is_a_temporary_folder(tmp_path):
    code = "import os, pathlib\npathlib.Path.home = lambda: (_ for _ in ()).throw(RuntimeError('no home'))\n"
    code += "import src\nprint(os.environ['MS_COMPILER_CACHE_PATH'])"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "MS_COMPILER_CACHE_PATH")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**environment, "TMPDIR": str(tmp_path)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))


SLOW_TO_END = """
import ctypes
from src import cli
from src.errors import UserError

def main(argv):
    libc = ctypes.CDLL(None)  # as MindSpore's libraries do, it takes its time after Python has ended
    libc.on_exit(ctypes.cast(libc.sleep, ctypes.c_void_p), None)  # so many seconds as the exit code is
    raise UserError("refused")

cli.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="on_exit is the GNU library's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_end_does_not_change_the_exit_code(number):
    with subprocess.Popen([sys.executable, "-c", SLOW_TO_END], cwd=ROOT, stderr=subprocess.PIPE, text=True) as job:
        assert job.stderr.readline() == "error: refused\n"
        time.sleep(0.5)
        job.send_signal(number)
        assert job.wait() == 2

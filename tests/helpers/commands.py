"""Run commands of this project, in this process or in one of their own."""

import contextlib
import io
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from src import cli
from src.errors import UserError, one_line
from src.runtime import device

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def module(name, *arguments, cwd=ROOT):
    """Return a command that runs a module of this project in any folder, and the options of subprocess for it."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    return command, {"cwd": cwd, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}


def run_module(name, *arguments, cwd=ROOT):
    """Run a module in a process of its own."""
    command, options = module(name, *arguments, cwd=cwd)
    return subprocess.run(command, capture_output=True, timeout=600, check=False, **options)


def run_script(script, *arguments, cwd):
    """Run an entry point in a process of its own, in a folder of its own."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def run_here(name, *arguments, cwd):
    """Run the `main` of a module in this process, in a folder: what `src.cli.run` would print and return."""
    output = io.StringIO()
    before = Path.cwd()
    code, said = 0, ""
    with contextlib.redirect_stdout(output):
        os.chdir(cwd)
        try:
            import_module(name).main([str(argument) for argument in arguments])
        except Exception as error:
            known = cli.as_known(error)
            if known is None:
                raise
            code, said = (2 if isinstance(known, UserError) else 1), f"error: {one_line(str(known))}\n"
        finally:
            os.chdir(before)
            device.set_up("CPU", fused_kernels="off")  # as tests/conftest.py
    return SimpleNamespace(returncode=code, stdout=output.getvalue(), stderr=said)

"""The house: which files stand where, how long they are, and that it is not installed by mistake."""

import ast
import subprocess
import sys

import src
from tests.helpers.commands import ROOT


def test_src_holds_rooms_and_the_ground_floor():
    loose = {path.name for path in (ROOT / "src").glob("*.py")}
    assert loose == {"__init__.py", "commands.py", "cli.py", "errors.py", "files.py", "markdown.py", "progress.py"}


def test_functions_fit_a_screen():
    for path in sorted(path for name in ("src", "examples", "contrib") for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 50, f"{path}: {node.name}"


def test_commands_are_thin():
    for path in [*(ROOT / "src/tools").glob("*.py"), *(ROOT / name for name in ("train.py", "eval.py", "export.py"))]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path.name


def test_the_version_is_that_of_the_project_file():
    assert f'\nversion = "{src.__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_installing_it_is_refused_with_a_line():
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "is not a package; use: pip install -r requirements.txt" in done.stdout + done.stderr
    assert not list(ROOT.glob("*.egg-info"))
    assert not (ROOT / "build").exists()

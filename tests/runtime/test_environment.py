"""What is told of hardware and code, without which no figure is given."""

import shutil
import subprocess

import pytest

from src.runtime import environment

INTEL = "processor : 0\nmodel name : Some (R) CPU @ 2:1\nflags : fpu avx2{}\n\nprocessor : 1\nmodel name : Other\n"
ARM = "processor : 0\nFeatures : fp asimd\nCPU part : 0xd0c\n"


def git(folder, *arguments):
    person = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", folder, *person, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_commit_of_the_code_is_told_and_whether_files_differ_from_it(tmp_path):
    assert environment.commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    file = tmp_path / "src" / "a.py"
    file.parent.mkdir()
    file.write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    git(tmp_path, "tag", "-m", "b", "v1")
    committed = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").mkdir()
    assert environment.commit(tmp_path) == committed
    file.write_text("a = 2\n")
    assert environment.commit(tmp_path) == f"{committed}-dirty"


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit(environment.ROOT) == "unknown"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (INTEL.format(" avx512f"), "Some (R) CPU @ 2:1 (AVX-512)"),
        (INTEL.format(""), "Some (R) CPU @ 2:1 (AVX2)"),
        (ARM, "aarch64"),
        ("", "aarch64"),
    ],
)
def test_the_processor_is_told_with_its_vectors(monkeypatch, cpuinfo, name):
    monkeypatch.setattr(environment, "cpuinfo", lambda: cpuinfo)
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    assert environment._processor() == name

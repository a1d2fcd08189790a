"""What a user without rights is told: one line each, and nothing is left behind."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from src.config import Config, dump
from tests.helpers import hostile
from tests.helpers.commands import ROOT, run_here, run_module

QUICK = ["--config", str(ROOT / "configs/quickstart.yaml")]
SMALL = ["data.root=photos", "data.batch_size=6", "data.workers=1", "model.embed_dim=16", "model.num_heads=2",
         "model.depth=3", "model.tokens=none", "train.epochs=1", "train.warmup_dense_epochs=0",
         "runtime.fused_kernels=off"]  # fmt: skip
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
CASES = [
    ("train", [*QUICK, "data.root=locked"], "locked/train: Permission denied; give this user the right to it"),
    ("train", [*QUICK, "data.root=locked/photos"], "locked/photos: Permission denied; give this user"),
    ("train", [*QUICK, "data.root=closed"], "closed/train/bee: Permission denied; give this user"),
    ("train", [*QUICK, *SMALL, "run.dir=locked/run"], "locked/run/config.yaml: Permission denied; give this user"),
    ("train", ["--config", "locked/a.yaml"], "config locked/a.yaml cannot be read: Permission denied"),
    ("train", ["--config", "closed.yaml"], "config closed.yaml cannot be read: Permission denied"),
    ("train", ["--resume", "locked/run"], "locked/run/config.yaml: Permission denied; give this user"),
    ("eval", ["--ckpt", "locked/best.ckpt"], "locked/best.ckpt: Permission denied; give this user"),
    ("eval", ["--ckpt", "closed.ckpt"], "checkpoint closed.ckpt cannot be read: Permission denied"),
    ("src.tools.report", ["locked/run"], "locked/run/config.yaml: Permission denied; give this user"),
    ("src.tools.visualize", ["--ckpt", "best.ckpt", "locked/a.png"], "locked/a.png: Permission denied; give"),
    ("export", ["--ckpt", "best.ckpt", "--output", "readonly/a.mindir"],
     "readonly: this user may not write there; name another folder"),
    ("train", [*QUICK, *SMALL, "run.dir=readonly/run"], "run.dir readonly/run: this user may not write to"),
    ("train", [*QUICK, *SMALL], "run.dir runs: this user may not write to"),
    ("train", ["--resume", "readonly/old"], "readonly/old/lock: Permission denied; give this user the right"),
]  # fmt: skip


@pytest.mark.slow
def test_without_rights_every_command_ends_in_a_line(photos):
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become nobody, with setpriv")
    folder = Path(tempfile.mkdtemp())
    try:
        _prepare(folder, photos)
        reads = f"import mindspore, pydantic; open({str(ROOT / 'train.py')!r})"
        if subprocess.run([*NOBODY, sys.executable, "-c", reads], capture_output=True, check=False).returncode:
            pytest.skip("nobody may not read this folder or the packages")
        cases = [{"module": name, "arguments": given, "folder": str(folder)} for name, given, _ in CASES]
        (folder / "cases.json").write_text(json.dumps(cases))
        before = sorted(folder.rglob("*"))
        command = [*NOBODY, sys.executable, "-m", "tests.helpers.refusals", str(folder / "cases.json")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        for (_, given, message), (kind, said, _, _) in zip(CASES, json.loads(done.stdout.splitlines()[-1])):
            assert kind == "UserError", (given, said)
            assert message in said, given
        assert sorted(folder.rglob("*")) == before
    finally:
        shutil.rmtree(folder)


def _prepare(folder, photos):
    folder.chmod(0o755)
    for name in ("photos", "closed"):
        shutil.copytree(photos, folder / name)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / "closed/train/bee").chmod(0)
    import dataclasses

    from src.models import from_config
    from src.training.checkpoint import save_weights

    config = dataclasses.replace(Config(), model=hostile.MODEL)
    save_weights(folder / "best.ckpt", config, from_config(hostile.MODEL))
    shutil.copy(folder / "best.ckpt", folder / "closed.ckpt")
    (folder / "closed.yaml").write_text("{}")
    for name in ("closed.ckpt", "closed.yaml"):
        (folder / name).chmod(0)
    for name in ("readonly", "readonly/old/checkpoints", "locked"):
        (folder / name).mkdir(parents=True)
    text = dump(dataclasses.replace(config, data=dataclasses.replace(config.data, root="photos", batch_size=6)))
    (folder / "readonly/old/config.yaml").write_text(text)
    (folder / "locked").chmod(0o700)


@pytest.mark.slow
def test_on_a_full_disk_every_command_ends_in_a_line_and_nothing_is_left(tmp_path, photos):
    """A file system of 1 MB in memory, which root can make."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        _fill_and_try(disk, tmp_path, photos)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _fill_and_try(disk, tmp_path, photos):
    import dataclasses

    from src.models import from_config
    from src.training.checkpoint import save_weights

    model = dataclasses.replace(hostile.MODEL, embed_dim=64, depth=12)
    save_weights(tmp_path / "best.ckpt", dataclasses.replace(Config(), model=model), from_config(model))
    done = run_here("export", "--ckpt", tmp_path / "best.ckpt", "--output", disk / "a.mindir", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{disk}/a.mindir: No space left on device; make room" in done.stderr
    assert list(disk.iterdir()) == []
    (disk / "filled").write_bytes(b"x" * 2**20)
    options = [*QUICK, *SMALL, f"data.root={photos}"]
    done = run_here("train", *options, f"run.dir={disk}/run", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left on device; make room" in done.stderr
    environment = {"MS_COMPILER_CACHE_PATH": str(disk / "cache")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        done = run_module("train", *options, "runtime.fused_kernels=on", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "AKG does not start" in done.stderr
    assert "No space left on device" in done.stderr

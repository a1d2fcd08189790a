"""The entry points as a user runs them: in processes of their own."""

import csv
import json
import logging
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from src.weights.files import CONFIG, read_arrays
from tests.helpers.commands import ROOT, module, run_here, run_module
from tests.helpers.commands import run_script as run
from tests.torture import FOUR_PHASES, torture

QUICK = ["--config", str(ROOT / "configs/quickstart.yaml")]
SMALL = ["model.embed_dim=16", "model.num_heads=2", "model.depth=4", "model.tokens=2(50%)+4", "data.workers=1",
         "runtime.fused_kernels=off"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos):
    """A run of two epochs on the small photographs, through train.py."""
    cwd = tmp_path_factory.mktemp("work")
    options = [f"data.root={photos}", "data.batch_size=6", "train.epochs=2", "train.warmup_dense_epochs=1"]
    done = run("train.py", *QUICK, *SMALL, *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_train_leaves_a_run_folder(trained):
    cwd, done = trained
    (folder,) = (cwd / "runs").iterdir()
    assert sorted(path.name for path in cwd.iterdir()) == ["runs"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "classes.txt", "config.yaml", "environment.json", "images.json", "lock", "metrics.csv",
        "phases.md", "report.html", "train.log"]  # fmt: skip
    assert (folder / "classes.txt").read_text() == "ant\nbee\ncat\n"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.ckpt", "last.ckpt", "previous.ckpt"]  # fmt: skip
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["tokens"] for row in rows] == ["none", "2(50%)+4"]
    assert list(rows[0]) == ["epoch", "phase", "tokens", "loss", "lr", "top1", "top5", "img_s", "seconds", "image_size"]
    assert "num_classes: 3" in (folder / "config.yaml").read_text()
    assert "epoch 2/2 2(50%)+4: loss" in done.stdout
    assert "epoch 2/2 2(50%)+4: loss" in (folder / "train.log").read_text()
    assert "\r" not in done.stdout + done.stderr


@pytest.mark.slow
def test_fused_kernels_leave_nothing_in_the_working_directory(tmp_path, photos):
    options = [f"data.root={photos}", "data.batch_size=18", "train.epochs=1", "train.warmup_dense_epochs=0"]
    tiny = ["model.depth=3", "model.embed_dim=16", "model.num_heads=2", "model.tokens=1(50%)+3"]
    done = run("train.py", *QUICK, *options, *tiny, "runtime.fused_kernels=on", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.slow
def test_evaluate_under_several_schedules(trained):
    cwd, _ = trained
    specs = ["none", "3(50%)+fused", "<2..3(50%,random)+next"]
    done = run("eval.py", "--tokens", *specs, "--output", "matrix", "--save_tokens", cwd=cwd)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()[-3:]]
    assert [result["tokens"] for result in results] == specs
    for result in results:
        assert result["images"] == 9
        assert 0 <= result["top1"] <= result["top5"] == 100
    alone = run("eval.py", "model.tokens=3(50%)+fused", cwd=cwd)
    assert json.loads(alone.stdout.splitlines()[-1]) == results[1]
    with (cwd / "matrix/evaluation.csv").open() as file:
        assert [float(row["top1"]) for row in csv.DictReader(file)] == [result["top1"] for result in results]
    with np.load(cwd / "matrix/tokens.npz") as file:
        arrays = dict(file)
    drops = ["3(50%)+fused kept 3", "<2..3(50%,random)+next kept 2", "<2..3(50%,random)+next kept 3"]
    assert [name for name in arrays if "kept" in name] == drops
    kept, scores = arrays[drops[0]], arrays["3(50%)+fused scores 3"]
    number, patches = scores.shape
    assert (number, kept.shape) == (9, (9, patches // 2))
    best = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, : patches // 2], axis=1)
    assert np.array_equal(kept, best)


def test_evaluation_agrees_with_the_metrics_of_the_run(trained, photos):
    cwd, _ = trained
    (last,) = cwd.glob("runs/*/checkpoints/last.ckpt")
    done = run_here("eval", *QUICK, *SMALL, "--ckpt", last, f"data.root={photos}", cwd=cwd)
    with (last.parents[1] / "metrics.csv").open() as file:
        expected = float(list(csv.DictReader(file))[-1]["top1"])
    assert json.loads(done.stdout.splitlines()[-1])["top1"] == pytest.approx(expected, abs=1e-3)


def test_export_next_to_the_newest_runs_best_checkpoint(trained):
    cwd, _ = trained
    done = run("export.py", cwd=cwd)
    assert done.returncode == 0, done.stderr
    (exported,) = cwd.glob("runs/*/checkpoints/best.mindir")
    assert str(exported.relative_to(cwd)) in done.stdout
    exported.unlink()


def test_resume_with_more_epochs(trained):
    cwd, _ = trained
    (folder,) = (cwd / "runs").iterdir()
    done = run("train.py", "--resume", folder, "train.epochs=3", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch 2" in done.stdout
    with (folder / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    fewer = run_here("train", "--resume", folder, "train.epochs=2", cwd=cwd)
    assert (fewer.returncode, fewer.stderr.count("\n")) == (2, 1)
    assert "has done 3 epochs already" in fewer.stderr
    assert "epochs: 3" in (folder / "config.yaml").read_text()
    refused = run_here("train", "--resume", folder, "data.batch_size=4", cwd=cwd)
    assert refused.stderr.startswith("error: override 'data.batch_size=4'")


@pytest.mark.slow
def test_skipvit_s_takes_a_step_at_224(tmp_path, photos):
    """The ImageNet recipe as it is shipped, but for data, device and precision (float16 is slow on CPU)."""
    done = run(
        "train.py", "--config", ROOT / "configs/skipvit_s.yaml", "--device_target", "CPU", f"data.root={photos}",
        "data.batch_size=6", "data.workers=1", "train.epochs=1", "train.warmup_dense_epochs=0", "run.dir=out",
        "train.amp_level=O0", "runtime.fused_kernels=off", "train.report=false", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out/metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["tokens"] == "6(55%)+11"
    assert np.isfinite(float(row["loss"]))


def test_checkpoints_that_do_not_fit_are_named(trained, tmp_path):
    cwd, _ = trained
    (best,) = cwd.glob("runs/*/checkpoints/best.ckpt")
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(best.read_bytes()[:5000])
    for script in ("eval", "export"):
        other = run_here(script, "--ckpt", best, "model.embed_dim=32", cwd=cwd)
        assert (other.returncode, other.stderr.count("\n")) == (2, 1)
        assert other.stderr.startswith(f"error: checkpoint {best} does not fit the model; other shape: cls_token")
        assert "cls_token [1, 1, 16] for [1, 1, 32], " in other.stderr
        assert re.search(r" and \d+ more$", other.stderr)
        assert len(other.stderr) < 400
        damaged = run_here(script, *QUICK, "--ckpt", broken, cwd=cwd)
        assert (damaged.returncode, damaged.stderr.count("\n")) == (2, 1)
        assert damaged.stderr.startswith(f"error: checkpoint {broken} is damaged")


def test_data_of_other_classes_is_refused(trained, photos, tmp_path):
    cwd, _ = trained
    (best,) = cwd.glob("runs/*/checkpoints/best.ckpt")
    for name in ("ant", "bee"):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val" / name).symlink_to(photos / "val" / name)
    done = run_here("eval", "--ckpt", best, f"data.root={tmp_path}", cwd=cwd)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "only in the training: cat" in done.stderr


def test_a_run_folder_is_not_used_twice(trained, photos):
    cwd, _ = trained
    (folder,) = (cwd / "runs").iterdir()
    before = (folder / "metrics.csv").read_bytes()
    done = run_here("train", *QUICK, f"data.root={photos}", "data.batch_size=6", f"run.dir={folder}", cwd=cwd)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"resume it with --resume {folder}" in done.stderr
    assert (folder / "metrics.csv").read_bytes() == before


def start(*arguments, cwd):
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(job, text):
    for line in job.stdout:
        if text in line:
            return
    raise AssertionError(job.stderr.read())


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, photos, number):
    options = [f"data.root={photos}", "data.batch_size=6", "train.epochs=9999", "run.dir=a run"]
    job = start(*QUICK, *SMALL, *options, cwd=tmp_path)
    wait_for(job, "epoch 2/")
    job.send_signal(number)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 128 + number
    assert said.endswith(f"{number.name}: saved; resume with python train.py --resume 'a run'\n")
    done = len((tmp_path / "a run" / "metrics.csv").read_text().splitlines()) - 1
    job = start("--resume", "a run", "train.epochs=9999", cwd=tmp_path)
    wait_for(job, "resuming after epoch")
    job.send_signal(number)  # while it compiles
    time.sleep(1.2)
    job.send_signal(number)  # and at once
    job.communicate(timeout=120)
    assert job.returncode == 128 + number
    assert len((tmp_path / "a run" / "metrics.csv").read_text().splitlines()) - 1 == done


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((moment, signal.SIGINT) for moment in ("import", "step", "saving")),
        *(pytest.param(moment, signal.SIGINT, marks=pytest.mark.slow) for moment in ("verify", "evaluation")),
        *(pytest.param(moment, signal.SIGTERM, marks=pytest.mark.slow) for moment in ("start-up", "compile", "step")),
    ],
)
def test_a_signal_at_any_moment(tmp_path, photos, moment, number):
    options = [f"data.root={photos}", "data.batch_size=6", "train.epochs=3", "run.dir=run"]
    done = run_module("tests.helpers.signals", moment, int(number), *QUICK, *SMALL, *options, cwd=tmp_path)
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    if moment in ("start-up", "import", "verify"):
        assert done.stderr == f"error: stopped by {number.name}\n"
        assert list(tmp_path.iterdir()) == []
    else:
        end = f"{number.name}: saved; resume with python train.py --resume run\n"
        assert done.stderr.endswith(end)
        assert (tmp_path / "run" / "train.log").read_text().endswith(end)
        assert CONFIG in read_arrays(tmp_path / "run" / "checkpoints" / "last.ckpt")
        assert not list(tmp_path.glob("**/*.partial*"))


def test_ctrl_c_reaches_us_through_a_thread_that_was_there_before():
    program = """
import signal, threading, time
thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
thread.start()  # as libraries do when they are imported; it does not block the signal
from src.runtime.signals import STOP
STOP.install()
with STOP.graceful():
    signal.pthread_kill(thread.ident, signal.SIGINT)
    time.sleep(0.3)
    assert STOP.requested == signal.SIGINT
STOP.requested = None
try:
    signal.pthread_kill(thread.ident, signal.SIGINT)
    time.sleep(0.3)
except KeyboardInterrupt:
    print("interrupted", STOP.requested.name, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted SIGINT\n"), done.stderr
    assert done.stderr == "SIGINT: stopping after this step; once more to stop at once\n"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 0, ""),
        pytest.param(signal.SIGTERM, 143, "error: stopped by SIGTERM\n", marks=pytest.mark.slow),
    ],
)
def test_in_the_background_ctrl_c_is_for_others(tmp_path, photos, number, code, said):
    options = [f"data.root={photos}", "data.batch_size=6", "train.epochs=1", "run.dir=run"]
    command, how = module("tests.helpers.signals", "verify", int(number), *QUICK, *SMALL, *options, cwd=tmp_path)
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as a shell's background jobs
    done = subprocess.run([*ignoring, *command], capture_output=True, check=False, **how)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_checkpoint_brings_its_configuration_along(trained, tmp_path):
    cwd, _ = trained
    (best,) = cwd.glob("runs/*/checkpoints/best.ckpt")
    shutil.copy(best, tmp_path / "moved.ckpt")
    before = json.loads(run_here("eval", cwd=cwd).stdout.splitlines()[-1])
    after = json.loads(run_here("eval", "--ckpt", tmp_path / "moved.ckpt", cwd=tmp_path).stdout.splitlines()[-1])
    assert after == before
    refused = run_here("eval", "--ckpt", tmp_path / "moved.ckpt", "model.tokes=none", cwd=tmp_path)
    assert refused.stderr.startswith("error: override 'model.tokes=none': unknown key model.tokes; did you mean")


def test_what_a_training_left_out_is_left_out_of_its_evaluation(tmp_path, photos):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/val/cat/0.JPEG").write_bytes(b"no image")
    (tmp_path / "photos/train/ant/nowhere.png").symlink_to("/nowhere")
    options = ["data.root=photos", "data.batch_size=6", "train.epochs=1", "run.dir=run", "train.report=false"]
    done = run_here("train", *QUICK, *SMALL, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert re.match(
        r"error: 2 images cannot be used: \S+/nowhere\.png: No such file or directory; \S+ not an", done.stderr
    )
    assert done.stderr.endswith("; mend or remove them, or set data.on_bad_image=skip\n")
    done = run("train.py", *QUICK, *SMALL, *options, "data.on_bad_image=skip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run/checkpoints/best.ckpt"
    assert best.stat().st_mode & 0o777 == 0o644
    result = run_here("eval", "--ckpt", best, cwd=tmp_path)
    assert json.loads(result.stdout.splitlines()[-1])["images"] == 8
    refused = run_here("eval", "--ckpt", best, "data.on_bad_image=error", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "1 image cannot be used: " in refused.stderr


def test_a_second_training_in_a_folder_is_refused(tmp_path, photos):
    options = [f"data.root={photos}", "data.batch_size=6", "train.epochs=9999", "run.dir=run"]
    job = start(*QUICK, *SMALL, *options, cwd=tmp_path)
    wait_for(job, "epoch 1/")
    before = (tmp_path / "run/config.yaml").read_bytes()
    second = run("train.py", "--resume", "run", "train.epochs=10000", cwd=tmp_path)
    assert (tmp_path / "run/config.yaml").read_bytes() == before, "nothing is written before the lock is held"
    assert "in use" not in (tmp_path / "run/train.log").read_text()
    job.kill()
    job.communicate()
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: run folder run is in use by process {job.pid} on ")


def test_what_a_configuration_left_open_and_what_the_data_lacks_is_said(tmp_path, photos, monkeypatch, caplog):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/train/ant/moving.gif").touch()
    (tmp_path / "one.yaml").write_text("train: {epochs: 1, warmup_dense_epochs: 0, amp_level: O0, report: false}")
    options = ["data.root=photos", "data.batch_size=6", "run.dir=run", "runtime.device_target=CPU"]
    small = ["model.image_size=32", "model.num_classes=5", "model.depth=1", "model.tokens=none"]
    monkeypatch.setattr(logging.getLogger("skipvit"), "handlers", [])
    done = run_here("train", "--config", "one.yaml", *SMALL, *small, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set by no one, taken from the defaults: model.name=skipvit_s_16_224 optimizer.lr=0.0005; " in caplog.text
    assert f"not used of {tmp_path}/photos/train: 1 file(s) .gif\n" in caplog.text
    outputs = "has 3 classes, the model 5 outputs: labels are the first 3"
    assert outputs in caplog.text
    caplog.clear()
    assert run_here("eval", "--ckpt", "run/checkpoints/best.ckpt", cwd=tmp_path).returncode == 0
    assert outputs in caplog.text


@pytest.mark.long
def test_torture_of_four_phases_in_short(tmp_path, monkeypatch):
    """The second trial is the one that is killed at a border."""
    monkeypatch.chdir(tmp_path)
    assert torture(1, random.Random(0), FOUR_PHASES, first=1)

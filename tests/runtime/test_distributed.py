"""Data parallel: two processes of msrun against one, what they share, and the death of one."""

import os
import signal
import socket
import subprocess
import sys
import time
from itertools import chain

import numpy as np
import pytest
from mindspore import ops

from src.data import datasets, loaders, order
from src.errors import UserError
from src.runtime import device, distributed
from src.runtime.distributed import ProcessGroup
from tests.helpers.commands import ROOT
from tests.helpers.configs import load
from tests.helpers.msrun import environment, msrun, worker

MODEL = """
model: {name: skipvit_ti_16_224, tokens: 2(50%)+4, image_size: 16, patch_size: 4, embed_dim: 32, depth: 4, num_heads: 2,
        num_classes: 7}
optimizer: {name: momentum, weight_decay: 0.05}
"""
PLAIN = "workers: 1, hflip: 0.0, scale: [1.0, 1.0], ratio: [1.0, 1.0], crop_pct: 1.0"


def command(*arguments, processes=1, logs=None):
    """A command line that runs a module or file of the project, under msrun if there are several processes."""
    return [sys.executable, *arguments] if processes == 1 else msrun(processes, logs, *arguments)


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """320 images to train on, and 1,001 to validate on, of 7 classes: sizes that two processes do not share evenly."""
    from PIL import Image

    root = tmp_path_factory.mktemp("colours")
    random = np.random.RandomState(0)
    for split, count in (("train", 320), ("val", 1001)):
        for number in range(count):
            label = number % 7
            pixels = random.randint(0, 120, (16, 16, 3)).astype(np.uint8) + np.uint8(15) * np.uint8(label)
            folder = root / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def one_and_two(colours, tmp_path_factory):
    """What tests/ranks.py wrote as one process, and as two."""
    folder = tmp_path_factory.mktemp("ranks")
    return [train_as(processes, colours, folder) for processes in (1, 2)]


def train_as(processes, colours, folder, accumulate=1, model=MODEL):
    """Train steps of 16 images, by so many processes and batches each: what tests/helpers/ranks.py wrote."""
    file, out = folder / "config.yaml", folder / f"{processes}.npz"
    file.write_text(f"{model}data: {{root: {colours}, {PLAIN}}}\ntrain: {{accumulate: {accumulate}}}\n")
    arguments = ["-m", "tests.helpers.ranks", str(file), str(out)]
    if processes > 1:
        arguments = [str(ROOT / "tests" / "helpers" / "ranks.py"), str(file), str(out), "--msrun"]
    run = command(*arguments, processes=processes, logs=folder / "logs")
    done = subprocess.run(run, cwd=folder, env=environment(), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return np.load(out)


@pytest.mark.slow
def test_two_processes_train_as_one(one_and_two):
    one, two = one_and_two
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert len(one["losses"]) == len(two["losses"]) == 20
    assert one["losses"][-1] < one["losses"][0]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    assert np.abs(two["weights"] - one["weights"]).max() < 1e-5


@pytest.mark.long
def test_two_processes_of_two_batches_an_update_train_as_one_of_one(one_and_two, colours, tmp_path):
    one, _ = one_and_two
    four = train_as(2, colours, tmp_path, accumulate=2)
    assert len(four["losses"]) == 20
    np.testing.assert_allclose(four["losses"], one["losses"], rtol=1e-5)
    assert np.abs(four["weights"] - one["weights"]).max() < 1e-5


@pytest.mark.slow
def test_two_processes_of_an_lvvit_end_with_the_same_moving_averages(colours, tmp_path):
    """Each normalises by its own images; without `TrainStep.share_statistics` their moving averages differ."""
    found = train_as(
        2, colours, tmp_path, model=MODEL.replace("{name: skipvit_ti", "{backbone: lvvit, name: skipvit_ti")
    )
    assert len(found["digests"]) == 2
    assert len(set(found["digests"].tolist())) == 1
    assert np.isfinite(found["losses"]).all()


@pytest.mark.slow
def test_two_processes_evaluate_as_one(one_and_two):
    one, two = one_and_two
    assert one["counts"][2] == 1001
    assert 0 < one["counts"][0] < 1001
    assert (one["counts"] == two["counts"]).all()


def test_processes_share_images_without_overlap_or_loss(colours, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"{MODEL}data: {{root: {colours}, {PLAIN}, batch_size: 5}}")
    config = load(file)
    source = datasets.open_dataset(config.data)

    def labels_and_sums(loader):
        rows = []
        for images, labels in loader.create_tuple_iterator(num_epochs=1, output_numpy=True):
            rows.append([(int(label), float(image.sum(dtype=np.float64))) for image, label in zip(images, labels)])
        return rows

    group = [ProcessGroup(rank, 3) for rank in range(3)]
    parts = [labels_and_sums(loaders.val_loader(source, config, one)) for one in group]
    counts = [sum(map(len, part)) for part in parts]
    assert counts == [334, 334, 333]
    whole = chain.from_iterable(labels_and_sums(loaders.val_loader(source, config)))
    assert sorted(chain.from_iterable(chain.from_iterable(parts))) == sorted(whole)
    parts = [order.epoch_order(320, config, 1, one).images for one in group]
    assert [part.shape for part in parts] == 3 * [(320 // 15, 5)]
    whole = order.epoch_order(320, load(file, ["data.batch_size=15"]), 1).images
    assert (np.stack(parts, axis=2).reshape(21, 15) == whole).all()  # step by step, in turns
    assert len(np.unique(whole)) == 315


def test_more_processes_than_images_are_refused(colours, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"{MODEL}data: {{root: {colours}, batch_size: 200}}")
    with pytest.raises(UserError, match=r"batch_size 200 for each of 2 processes exceeds the 320 training images"):
        datasets.open_dataset(load(file).data, group=ProcessGroup(0, 2))


def test_distribute_without_msrun_is_refused():
    with pytest.raises(UserError, match="--distribute needs MindSpore's launcher; start with: msrun"):
        device.set_up("CPU", fused_kernels="off", distribute=True)


def test_a_sum_is_one_operator_however_often_it_is_asked_for(monkeypatch):
    made = []
    monkeypatch.setattr(ops, "AllReduce", lambda: made.append("operator") or (lambda values: 2 * values))
    distributed._all_reduce.cache_clear()
    try:
        group = ProcessGroup(0, 2)
        assert group.sum([1.0, 2.0]) == [2.0, 4.0]
        assert group.any_signal(None) is None
        assert [group.any_signal(number) for number in distributed.SIGNALS] == list(distributed.SIGNALS)
    finally:
        distributed._all_reduce.cache_clear()
    assert made == ["operator"]


@pytest.mark.long
def test_a_process_that_dies_ends_the_job_and_the_run_goes_on(colours, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        f"{MODEL}data: {{root: {colours}, {PLAIN}, batch_size: 8}}\n"
        f"train: {{epochs: 500}}\nrun: {{dir: {tmp_path / 'run'}}}\nruntime: {{fused_kernels: off}}"
    )
    rows = tmp_path / "run" / "metrics.csv"

    def start(*arguments):
        run = command(str(ROOT / "train.py"), "--distribute", *arguments, processes=2, logs=tmp_path / "logs")
        return subprocess.Popen(
            run, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    job = start("--config", str(file))
    patience = time.monotonic() + 120
    while not (rows.exists() and len(rows.read_text().splitlines()) > 2):
        assert time.monotonic() < patience
        assert job.poll() is None, job.stdout.read()[-3000:]
        time.sleep(0.2)
    os.kill(worker(1, str(file)), signal.SIGKILL)
    said, _ = job.communicate(timeout=90)
    assert job.returncode != 0
    assert "exit with exception" in said
    done = len(rows.read_text().splitlines()) - 1
    assert 2 <= done < 500
    job = start("--resume", str(tmp_path / "run"), f"train.epochs={done + 1}")
    said, _ = job.communicate(timeout=180)
    assert job.returncode == 0, said[-3000:]
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"resuming after epoch {done}" in log or f"resuming after epoch {done - 1}" in log
    assert log.count("2 processes of batch 8, together 16") == 2
    assert len(rows.read_text().splitlines()) - 1 == done + 1


def test_no_thread_waits_for_the_scheduler_when_the_interpreter_ends():
    """Not even one whose scheduler stays: what runs last at the exit finds it gone."""
    script = """
import atexit, threading
atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))  # the first, so it runs last
from src.runtime.distributed import _follow_scheduler
_follow_scheduler()
print([thread.name for thread in threading.enumerate()])
"""
    with socket.create_server(("127.0.0.1", 0)) as scheduler:
        address = {"MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(scheduler.getsockname()[1])}
        done = subprocess.run(
            [sys.executable, "-c", script], env={**environment(), **address}, capture_output=True, text=True, timeout=60
        )
    assert done.stdout.splitlines() == ["['MainThread', 'scheduler']", "['MainThread']"], done.stderr

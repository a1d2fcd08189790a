"""Training batches: the same however many workers make them and wherever an epoch begins; no process is left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from src.data import loaders
from src.data.augment import Augmenter
from src.data.datasets import open_dataset
from src.data.order import epoch_order
from src.data.training import TrainingData
from src.errors import RunError
from src.runtime.distributed import ProcessGroup
from tests.helpers.commands import ROOT
from tests.helpers.configs import load

RECIPE = [
    "data.auto_augment=randaug-m9-mstd0.5-inc1", "data.mixup=0.8", "data.cutmix=1.0", "data.random_erasing=0.5",
    "data.random_erasing_mode=pixel", "data.repeats=3",
]  # fmt: skip


def make(tmp_path, photos, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text(f"data: {{root: {photos}, batch_size: 6, workers: 1}}\nmodel: {{image_size: 32}}")
    config = load(path, overrides)
    return config, open_dataset(config.data)


def epoch(config, source, number=1, done=0):
    with TrainingData(source, config, 3) as data:
        return list(data.epoch(number, done))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for (images, labels), (same_images, same_labels) in zip(batches, others):
        assert (images == same_images).all()
        assert (labels == same_labels).all()


@pytest.mark.parametrize("workers", [2, 4])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path, photos, workers):
    """Random crop and flip, policy, erasing and mixing."""
    config, source = make(tmp_path, photos, *RECIPE)
    several, _ = make(tmp_path, photos, *RECIPE, f"data.workers={workers}")
    np.random.seed()  # what others draw does not matter
    one = epoch(config, source)
    assert len(one) == 3
    assert_same(one, epoch(several, source))
    for (images, _), (other, _) in zip(one, epoch(config, source, number=2)):
        assert (images != other).any()


def test_an_epoch_that_begins_later_goes_on_with_the_same_batches(tmp_path, photos, monkeypatch):
    config, source = make(tmp_path, photos, *RECIPE)
    whole = epoch(config, source)
    made = []
    original = Augmenter.__call__
    monkeypatch.setattr(Augmenter, "__call__", lambda self, item, key: made.append(key) or original(self, item, key))
    assert_same(epoch(config, source, done=2), whole[2:])
    assert len(made) == 6  # nothing of what was done
    assert epoch(config, source, done=3) == []


def test_the_data_set_that_sink_mode_sends_holds_the_same_batches(tmp_path, photos):
    config, source = make(tmp_path, photos, *RECIPE)
    whole = epoch(config, source)
    with TrainingData(source, config, 3) as data:
        sent = loaders.as_dataset(data.epoch(1, done=1))
        assert sent.get_dataset_size() == 2
        assert_same(list(sent.create_tuple_iterator(num_epochs=1, output_numpy=True)), whole[1:])


@pytest.mark.parametrize("taken", [1, 3])
def test_sink_mode_stops_sending_wherever_an_epoch_ends(tmp_path, photos, monkeypatch, taken):
    """With a queue of the test's own, for a CPU has none: not run on a 910A."""
    config, source = make(tmp_path, photos)
    stopped = []

    def data_sink(function, dataset):
        dataset.__transfer_dataset__ = SimpleNamespace(stop_send=lambda: stopped.append(True))
        sent = dataset.create_tuple_iterator(num_epochs=1)
        return lambda: function(*next(sent))

    monkeypatch.setattr(loaders.ms, "data_sink", data_sink)
    with TrainingData(source, config, 3) as data, closing(loaders.train_batches(data.epoch(1), sink=True)) as batches:
        assert len(list(islice(batches, taken))) == taken
        assert stopped == []
    assert stopped == [True]


def test_global_random_numbers_are_left_alone(tmp_path, photos):
    config, source = make(tmp_path, photos, *RECIPE)
    np.random.seed(1)
    expected = np.random.RandomState(1).random_sample()
    epoch(config, source)
    assert np.random.random_sample() == expected


def test_repeated_images_are_augmented_differently(tmp_path, photos):
    config, source = make(tmp_path, photos, "data.repeats=3")
    order = epoch_order(18, config, 1)
    assert order.images.shape == (3, 6)  # as many as the set has
    assert (order.images.reshape(6, 3) == order.images.reshape(6, 3)[:, :1]).all()  # copies stand side by side
    assert len(np.unique(order.images)) == 6
    assert (order.copies == [0, 1, 2, 0, 1, 2]).all()
    assert set(epoch_order(18, config, 2).images.ravel()) != set(order.images.ravel())
    images, labels = epoch(config, source)[0]
    assert labels[0] == labels[1] == labels[2]
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()


def test_processes_of_a_group_take_turns_at_the_copies(tmp_path, photos):
    """As DeiT's RASampler: rank r takes r, r + size, r + 2 * size, ... of the repeated order."""
    config, _ = make(tmp_path, photos, "data.repeats=3")
    parts = [epoch_order(36, config, 1, ProcessGroup(rank, 3)) for rank in range(3)]
    assert all((part.images == parts[0].images).all() for part in parts)
    assert [part.copies.max() for part in parts] == [part.copies.min() for part in parts] == [0, 1, 2]
    assert len(np.unique(parts[0].images)) == 12


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_cannot_be_read_is_named(tmp_path, photos, workers):
    config, source = make(tmp_path, photos, f"data.workers={workers}")
    with TrainingData(source, config, 3) as data:
        data.samples.items[:] = 17 * [data.samples.items[0]] + [str(tmp_path / "no.jpg")]
        with pytest.raises(RunError, match=r"the data cannot be read: image .*no\.jpg: No such file.*=skip"):
            list(data.epoch(1))
        (tmp_path / "no.jpg").write_bytes(b"no image")
        with pytest.raises(RunError, match=r"the data cannot be read: image .*no\.jpg: .*on_bad_image=skip"):
            list(data.epoch(1))


def test_seconds_of_waiting_for_a_batch_are_counted(tmp_path, photos, monkeypatch):
    """Waiting is what the consumer does not do itself: one that is slower than the workers does not wait."""
    config, source = make(tmp_path, photos)
    original = Augmenter.fill
    monkeypatch.setattr(Augmenter, "fill", lambda *given: time.sleep(0.1) or original(*given))
    with TrainingData(source, config, 3) as data:
        waits, ready = data.epoch(1), data.epoch(1, done=2)
        list(waits)
        ahead = data.request(1, ready.order, 2)
        ahead.result()
        ready._wait(ahead)
    assert waits.waited > 0.25
    assert ready.waited < 0.05


def test_an_augmentation_that_fails_says_the_cause(tmp_path, photos, monkeypatch):
    config, source = make(tmp_path, photos)
    with TrainingData(source, config, 3) as data:
        data.workers.all[0].augmenter.transforms.append(lambda image: image[99])
        with pytest.raises(RunError, match=r"cannot be augmented: image .*: IndexError: index 99 is out of bounds"):
            list(data.epoch(1))


def test_a_worker_that_dies_ends_the_run_with_a_line(tmp_path, photos):
    config, source = make(tmp_path, photos, "data.workers=2")
    with TrainingData(source, config, 3) as data:
        list(data.epoch(1))
        for worker in data.workers.all:
            worker.process.kill()
        with pytest.raises(
            RunError, match=r"a process that augments images ended with exit code -9 \(killed: is there"
        ):
            list(data.epoch(1))


SCRIPT = """
import sys, time
from src.data.datasets import open_dataset
from src.data.training import TrainingData
from tests.helpers.configs import load

if __name__ == "__main__":
    config = load(sys.argv[1], ["data.workers=2"])
    data = TrainingData(open_dataset(config.data), config, 3)
    list(data.epoch(1))
    print(*[worker.process.pid for worker in data.workers.all], flush=True)
    if sys.argv[2] == "wait":
        time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_no_process_is_left_behind(tmp_path, photos, end):
    make(tmp_path, photos)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "config.yaml"), "wait" if end else "end"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as job:
        workers = [Path("/proc", pid) for pid in job.stdout.readline().split()]
        assert len(workers) == 2
        if end:
            assert all(worker.exists() for worker in workers)
            for worker in workers:
                os.kill(int(worker.name), signal.SIGTERM)  # to the whole group: the parent decides
            time.sleep(0.2)
            assert all(worker.exists() for worker in workers)
            job.send_signal(end)
        assert job.wait(timeout=30) == (-end if end else 0)
    patience = time.monotonic() + 10
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < patience
        time.sleep(0.05)

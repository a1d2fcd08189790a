"""Measure the data pipeline of a configuration alone: for one core, with more workers, and beside timm's."""

import dataclasses
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from src import markdown
from src.benchmarks.peers import Peer, is_installed
from src.benchmarks.timing import Timing, interleave
from src.benchmarks.timm_pipeline import PipelineSettings, contestant, in_words
from src.config import Config, sides
from src.data.datasets import Dataset, open_dataset
from src.data.verify import drop_bad_images
from src.errors import UserError
from src.runtime import device
from src.runtime.environment import environment, one_line

Report = dict[str, Any]

IMAGES_OF_A_PASS = 768  # at most

FACTS = ("hardware", "system", "python", "mindspore", "mindcv", "numpy", "date")  # no device takes part

log = logging.getLogger("skipvit")


def measure_data(config: Config, rounds: int, rate: int, peers: Sequence[str]) -> Report:
    """Measure passes over some of the training images, interleaved, with 1, 2, 4, ... to `data.workers` workers.

    A single worker is a thread of this process, so that the process's CPU time tells what an image costs.

    Args:
        rounds: Rounds in which every contestant has a turn.
        rate: Images a second of the training that is to be fed.
        peers: `timm` among them for its pipeline beside ours.
    """
    dataset = drop_bad_images(open_dataset(config.data, ("train",)), config.data.on_bad_image, device.cache_folder())
    classes = config.model.num_classes or len(dataset.classes)
    dataset.check_fits(classes)
    steps = max(1, min(dataset.splits["train"].num_images, IMAGES_OF_A_PASS) // config.data.batch_size)
    images = steps * config.data.batch_size
    counts = _counts(config.data.workers)
    cpu: dict[str, list[float]] = {}
    with ExitStack() as stack:
        runs = {in_words(count): _own(stack, config, dataset, classes, count, steps) for count in counts}
        versions = {}
        if "timm" in peers and is_installed("timm"):
            peer = Peer("timm", _settings(config, dataset, classes, images, counts))
            stack.callback(peer.close)
            runs.update({name: partial(peer.run, name) for name in peer.names})
            versions = peer.versions
        contestants: dict[str, Callable[[], None]] = {
            name: partial(_note_cpu, cpu.setdefault(name, []), run) for name, run in runs.items()
        }
        log.info("timing %d images, rounds: %d", images, rounds)
        timings = interleave(contestants, rounds, 1, base=in_words(1))
    rows = [_row(name, timings, images, cpu[name]) for name in runs]
    most = rows[len(counts) - 1]
    facts = environment(config)
    conditions = {
        **{key: facts[key] for key in FACTS}, "batch_size": config.data.batch_size,
        "image_size": str(config.model.image_size), "images": images, "rounds": rounds, **versions,
    }  # fmt: skip
    return {
        "environment": conditions, "rows": rows, "data": {"img_s": most["img_s"], "workers": counts[-1]}, "rate": rate,
        "cores": rate * rows[0]["cpu_ms"] / 1000,
    }  # fmt: skip


def table(report: Report) -> str:
    """Return the report as Markdown."""
    rows = [
        [
            row["name"],
            f"{row['img_s']:.0f} ±{100 * row['spread']:.0f}%",
            f"{row['times_one']:.2f}×",
            "" if row["cpu_ms"] is None else f"{row['cpu_ms']:.2f}",
        ]
        for row in report["rows"]
    ]
    text = markdown.table(["pipeline", "img/s", "of one worker", "CPU ms an image"], rows)
    need = f"A training at {report['rate']} img/s keeps {report['cores']:.1f} cores busy with its images"
    return f"{text}\n{need}: data.workers={math.ceil(report['cores'])}\n\n{one_line(report['environment'])}\n"


def _own(
    stack: ExitStack, config: Config, dataset: Dataset, classes: int, workers: int, steps: int
) -> Callable[[], object]:
    """Return a pass over the last steps of an epoch, which returns this process's seconds of CPU time."""
    from src.data.training import TrainingData

    config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))
    data = stack.enter_context(TrainingData(dataset, config, classes))
    done = len(data.epoch(1)) - steps

    def load() -> float:
        started = time.process_time()
        for _ in data.epoch(1, done):
            pass
        return time.process_time() - started

    return load


def _settings(config: Config, dataset: Dataset, classes: int, images: int, counts: Sequence[int]) -> PipelineSettings:
    """Return a configuration's settings for timm.

    Raises:
        UserError: timm's pipeline has no counterpart.
    """
    data, split = config.data, dataset.splits["train"]
    height, width = sides(config.model.image_size)
    policy = data.auto_augment or ""
    if data.name != "folder" or split.indices is not None or height != width or data.color_jitter is not None:
        raise UserError("--peer timm wants square images of a folder train/CLASS/*, and no data.color_jitter")
    if policy and not policy.startswith("randaug-"):
        raise UserError(f"--peer timm has no counterpart of data.auto_augment {policy}; choose randaug-...")
    return PipelineSettings(
        str(split.folder / split.subset), images, tuple(counts), data.batch_size, classes, height, data.interpolation,
        policy.replace("randaug", "rand"), data.hflip, data.scale, data.ratio, data.random_erasing,
        data.random_erasing_mode, data.mixup, data.cutmix,
    )  # fmt: skip


def _counts(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to the configured number of workers and of cores."""
    most = min(most, os.cpu_count() or 1)
    return sorted({*(2**i for i in range(most.bit_length())), most})


def _note_cpu(seconds: list[float], run: Callable[[], Any]) -> None:
    seconds.append(run())


def _row(name: str, timings: dict[str, Timing], images: int, cpu: Sequence[float]) -> Report:
    """Return a contestant's figures; CPU time only where a single process does everything."""
    timing = timings[name]
    one = timings[contestant(1) if name.startswith("timm") else in_words(1)]
    return {
        "name": name,
        "img_s": images / timing.median,
        "spread": timing.spread,
        "times_one": statistics.median(a / b for a, b in zip(one.seconds, timing.seconds)),
        "cpu_ms": 1000 * statistics.median(cpu) / images if name in (in_words(1), contestant(1)) else None,
    }

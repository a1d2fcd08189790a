"""Measure training and inference of schedules, interleaved so that the machine's drift cancels.

As a program (python -m src.benchmarks.measure CONFIG) it measures compile time and memory of a training.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from src import markdown
from src.benchmarks.peers import Peer, PeerSizes, is_installed
from src.benchmarks.timing import Timing, interleave, share_of_ideal
from src.config import Config, ImageSize, dump, load, sides, with_tokens
from src.data import label_maps
from src.errors import RunError
from src.runtime import device
from src.runtime.environment import environment, one_line
from src.schedules import Geometry, Plan, parse, resolve
from src.schedules.phases import with_predictors

if TYPE_CHECKING:
    from mindspore import Tensor, nn

    from src.training.state import TrainState

Report = dict[str, Any]
Run = Callable[[], None]

log = logging.getLogger("skipvit")


def measure(config: Config, specs: Sequence[str], pairs: int, steps: int, peers: Sequence[str]) -> Report:
    """Measure every spec and peer, and describe the conditions.

    Args:
        specs: Schedules; gains are over the dense model, which is added.
        pairs: Rounds in which every contestant has a turn.
        steps: Timed steps of a turn.
        peers: Kinds of `src.benchmarks.peers`.
    """
    specs = list(dict.fromkeys(["none", *(str(parse(spec)) for spec in specs)]))
    plans = {spec: resolve(parse(spec), Geometry.from_config(config.model)) for spec in specs}
    set_up(config)
    sizes = peer_sizes(config)
    workers = [Peer(kind, sizes) for kind in peers if is_installed(kind)]
    probes = {spec: _probe_elsewhere(with_tokens(config, spec)) for spec in specs}
    contestants, token_ops = _contestants(config, sizes, plans)
    for worker in workers:
        contestants.update(worker.contestants())
    timings: dict[str, Timing] = {}
    for kind in ("train", "infer"):
        log.info("timing %s; rounds: %d, steps of a turn: %d", kind, pairs, steps)
        chosen = {name: run for name, run in contestants.items() if name.startswith(kind)}
        timings.update(interleave(chosen, pairs, steps, base=f"{kind} none"))
    if token_ops:
        timings.update(interleave(token_ops, pairs, steps, base=next(iter(token_ops))))
    own = {f"{kind} {spec}" for kind in ("train", "infer", "tokens") for spec in specs}
    report: Report = {
        "environment": conditions(config, sizes, pairs, steps, [worker.versions for worker in workers]),
        "rows": [_row(spec, timings, plans[spec].training_gain, sizes) | probes[spec] for spec in specs],
        "peers": [_peer_row(name, timings, sizes) for name in timings if name not in own],
    }
    for worker in workers:
        worker.close()
    return report


def time_training(configs: Mapping[str, Config], pairs: int, steps: int) -> dict[str, Timing]:
    """Set up the device, and time a training step of every configuration in turns; gains are over the first.

    Args:
        configs: By name; they differ in schedule and image size alone, and those of the first are the network's.

    Returns:
        Seconds of a step of `data.batch_size` images, by name.
    """
    first = next(iter(configs))
    set_up(configs[first])
    state = new_state(with_predictors(configs[first], *(config.model.tokens for config in configs.values())))
    runs = {}
    for number, (name, config) in enumerate(configs.items(), 1):
        log.info("compiling %s (%d of %d)", name, number, len(configs))
        runs[name] = training(config, state, config.model.tokens, random_batch(config), config.model.image_size)
    log.info("timing training; rounds: %d, steps of a turn: %d", pairs, steps)
    return interleave(runs, pairs, steps, base=first)


def set_up(config: Config) -> None:
    """Set up the device of a configuration."""
    device.set_up(config.runtime.device_target, config.runtime.fused_kernels, config.train.amp_level)


def probe(config: Config) -> dict[str, float]:
    """Measure compile time and peak memory of training; to be run in a process of its own."""
    import resource

    set_up(config)
    batch, state = random_batch(config), new_state(config)
    started = time.perf_counter()
    run = training(config, state, config.model.tokens, batch)
    compiled = time.perf_counter() - started
    for _ in range(2):
        run()
    return {"seconds": compiled, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def table(report: Report) -> str:
    """Return the report as Markdown."""
    header = ["schedule", "train img/s", "gain", "ideal", "share of ideal", "infer img/s", "select + rejoin", "peak MB",
              "compile s", "cached"]  # fmt: skip
    rows = [
        [
            f"`{row['spec']}`",
            f"{row['train_img_s']:.2f} ±{100 * row['train_spread']:.0f}%",
            f"{100 * row['gain']:+.1f}%",
            f"{100 * row['ideal_gain']:+.1f}%",
            f"{100 * row['share_of_ideal']:.1f}%",
            f"{row['infer_img_s']:.1f} ±{100 * row['infer_spread']:.0f}%",
            f"{100 * row['select_share']:.2f}%",
            f"{row['peak_memory_mb']:.0f}",
            f"{row['compile_s']:.1f}",
            f"{row['compile_cached_s']:.1f}",
        ]
        for row in report["rows"]
    ]
    text = markdown.table(header, rows)
    if report["peers"]:
        peers = [
            [peer["name"], f"{peer['img_s']:.2f} ±{100 * peer['spread']:.0f}%", f"{peer['dense_is_times']:.2f}×"]
            for peer in report["peers"]
        ]
        text += "\n" + markdown.table(["peer", "img/s", "our dense model is"], peers)
    return f"{text}\n{one_line(report['environment'])}\n"


def peer_sizes(config: Config) -> PeerSizes:
    """Return the sizes of a configuration's model, for peers to be built with."""
    geometry = Geometry.from_config(config.model)
    height, _ = sides(config.model.image_size)
    return PeerSizes(
        height, geometry.patch_size, geometry.embed_dim, geometry.depth, geometry.num_heads, geometry.num_classes,
        config.data.batch_size,
    )  # fmt: skip


def _row(spec: str, timings: Mapping[str, Timing], ideal: float, sizes: PeerSizes) -> Report:
    """Return a schedule's figures."""
    train, infer, token_ops = (timings.get(f"{kind} {spec}") for kind in ("train", "infer", "tokens"))
    assert train is not None
    assert infer is not None
    return {
        "spec": spec,
        "train_img_s": sizes.batch_size / train.median,
        "train_spread": train.spread,
        "infer_img_s": sizes.batch_size / infer.median,
        "infer_spread": infer.spread,
        "gain": train.gain,
        "infer_gain": infer.gain,
        "ideal_gain": ideal,
        "share_of_ideal": share_of_ideal(train.gain, ideal),
        "select_share": token_ops.median / train.median if token_ops else 0.0,
    }


def _peer_row(name: str, timings: Mapping[str, Timing], sizes: PeerSizes) -> Report:
    """Return a peer's figures, and how many times as fast our dense model is."""
    timing = timings[name]
    return {
        "name": name,
        "img_s": sizes.batch_size / timing.median,
        "spread": timing.spread,
        "dense_is_times": 1 / (1 + timing.gain),
    }


def conditions(
    config: Config, sizes: PeerSizes, pairs: int, steps: int, versions: Sequence[Mapping[str, str]]
) -> dict[str, object]:
    """Return hardware, versions, model and method: no figure without them."""
    facts = {
        **environment(config),
        "model": config.model.name,
        "image_size": f"{sizes.image_size}x{sizes.image_size}",
        "batch_size": sizes.batch_size,
        "rounds": f"{pairs} of {steps}",
    }
    for version in versions:
        facts.update(version)
    return facts


def _contestants(config: Config, sizes: PeerSizes, plans: Mapping[str, Plan]) -> tuple[dict[str, Run], dict[str, Run]]:
    """Return a training step and an inference of each spec, and the token operations alone, by name."""
    from src.benchmarks import token_ops

    state, batch = new_state(config), random_batch(config)
    runs, alone = {}, {}
    for number, (spec, plan) in enumerate(plans.items(), 1):
        log.info("compiling %s (%d of %d)", spec, number, len(plans))
        runs[f"train {spec}"] = training(config, state, spec, batch)
        network = state.network.with_tokens(spec).set_train(False)
        runs[f"infer {spec}"] = _runner(network, batch[0], *network.sample(sizes.batch_size, 0))
        if any(plan.kept):
            alone[f"tokens {spec}"] = token_ops.runner(plan, sizes.embed_dim, sizes.batch_size)
    return runs, alone


def random_batch(config: Config) -> list["Tensor"]:
    """Return random images and labels of a configuration's sizes."""
    from mindspore import Tensor

    return [Tensor(array) for array in peer_sizes(config).batch()]


def new_state(config: Config) -> "TrainState":
    """Create one set of weights and one optimiser for the training steps of all specs."""
    from src.models import from_config
    from src.models.asked import asks_of
    from src.training.state import create_train_state

    def build() -> "nn.Cell":
        return from_config(config.model, config.train.amp_level)

    return create_train_state(config, build, [1e-4] * 100_000, asks_of(config))


def training(
    config: Config, state: "TrainState", spec: str, batch: Sequence["Tensor"], image_size: Optional[ImageSize] = None
) -> Run:
    """Return a call of a compiled training step of one batch, whose images may have another size than the network's."""
    from mindspore import Tensor

    from src.training.state import make_train_step

    maps = map(Tensor, label_maps.blank(config, len(batch[0])))
    config = replace(config, train=replace(config.train, accumulate=1))  # a batch is timed, not an update of several
    step = make_train_step(state, config, spec, image_size=image_size)
    return _runner(step, *batch, *maps, *step.sample(len(batch[0]), 0))


def _runner(cell: "nn.Cell", *inputs: object) -> Run:
    """Return a call of a compiled cell that waits for its result."""
    device.compile_ahead(cell, *inputs)

    def run() -> None:
        output = cell(*inputs)
        (output[0] if isinstance(output, tuple) else output).asnumpy()

    return run


def _probe_elsewhere(config: Config) -> dict[str, float]:
    """Measure peak memory, and compile time with an empty kernel cache and with a full one."""
    log.info("memory and compile time of %s", config.model.tokens)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump(config), encoding="utf-8")
        variables = {**os.environ, "MS_COMPILER_CACHE_PATH": folder}
        cold, warm = (_run_probe(file, variables) for _ in range(2))
    return {
        "peak_memory_mb": cold["megabytes"],
        "compile_s": cold["seconds"],
        "compile_cached_s": warm["seconds"],
    }


def _run_probe(file: Path, variables: Mapping[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "src.benchmarks.measure", str(file)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"measuring in a process of its own failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(probe(load(sys.argv[1]))))

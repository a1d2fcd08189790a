"""Speed of schedules in training and inference, interleaved so that the machine's drift cancels.

Example: python -m src.tools.benchmark --specs none "6(55%)+11" --json bench.json --png bench.png
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from src import cli, runtime
from src.config import Config, dump, load, with_classes
from src.environment import environment, in_a_line
from src.errors import FailureError, UserError
from src.models.schedule import parse
from src.tools.paper import TABLE1
from src.tools.peers import INSTALL, Peer, Sizes, missing
from src.tools.timing import Timing, interleave, markdown, share_of_ideal

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "vit_s.yaml"
PRECISION = {"float32": "O0", "float16": "O2"}

log = logging.getLogger("skipvit")


def main(argv: Sequence[str]) -> None:
    args = _parser().parse(argv)
    cli.start_log()
    if args.probe:
        print(json.dumps(_probe(load(args.probe))))
        return
    config = _config(args)
    specs = _with_dense_first(args.specs)
    report = measure(config, specs, args.pairs, args.steps, args.peer, args.data)
    print(table(report))
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        Path(args.markdown).write_text(table(report), encoding="utf-8")
    if args.png:
        from src.tools.benchmark_plot import plot

        plot(report, Path(args.png))


def measure(config: Config, specs: Sequence[str], pairs: int, steps: int, peers: Sequence[str], data: str) -> dict:
    """Measure every spec, and peers, and describe where that was.

    Args:
        specs: The dense model's first: gains are over it.
        pairs: Rounds in which every contestant has a turn.
        steps: Timed steps of a turn.
        peers: Kinds of `src.tools.peers`.
        data: A configuration whose data pipeline is timed too; empty for none.
    """
    sizes = sizes_of(config)
    workers = [Peer(kind, sizes) for kind in peers if _is_installed(kind)]
    probes = {spec: _probe_elsewhere(config, spec) for spec in specs}
    contestants, plans, moves = _contestants(config, sizes, specs)
    for worker in workers:
        contestants.update(worker.contestants())
    timings: dict[str, Timing] = {}
    for kind in ("train", "infer"):
        log.info("timing %s: %d rounds of %d steps", kind, pairs, steps)
        chosen = {name: run for name, run in contestants.items() if name.startswith(kind)}
        timings.update(interleave(chosen, pairs, steps, base=f"{kind} none"))
    if moves:
        timings.update(interleave(moves, pairs, steps, base=next(iter(moves))))
    own = {f"{kind} {spec}" for kind in ("train", "infer", "moves") for spec in specs}
    report = {
        "environment": _conditions(config, sizes, pairs, steps, [w.versions for w in workers]),
        "rows": [_row(spec, timings, plans[spec].ideal_gain, sizes) | probes[spec] for spec in specs],
        "peers": [_peer_row(name, timings, sizes) for name in timings if name not in own],
    }
    for worker in workers:
        worker.close()
    if data:
        report["data_img_s"] = _time_data(load(data))
    return report


def time_training(config: Config, specs: Sequence[str], pairs: int, steps: int) -> dict[str, Timing]:
    """Set up the device, and time a training step of every spec, in turns as `measure` does; gains are over the first.

    Returns:
        Seconds of a step of `data.batch_size` images, by spec.
    """
    from mindspore import Tensor

    runtime.set_up(config.runtime.device_target, config.runtime.fused_kernels, config.train.amp_level)
    config = replace(config, model=replace(config.model, tokens=specs[0]))
    state, batch = _new_state(config), [Tensor(array) for array in sizes_of(config).batch()]
    runs = {}
    for number, spec in enumerate(specs, 1):
        log.info("compiling %s (%d of %d)", spec, number, len(specs))
        runs[spec] = _training(config, state, spec, batch)
    log.info("timing training: %d rounds of %d steps", pairs, steps)
    return interleave(runs, pairs, steps, base=specs[0])


def _row(spec: str, timings: dict[str, Timing], ideal: float, sizes: Sizes) -> dict:
    """A schedule's figures."""
    train, infer, moves = timings[f"train {spec}"], timings[f"infer {spec}"], timings.get(f"moves {spec}")
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
        "select_share": moves.median / train.median if moves else 0.0,
    }


def _peer_row(name: str, timings: dict[str, Timing], sizes: Sizes) -> dict:
    """A peer's figures, and how many times as fast our dense model is."""
    timing = timings[name]
    return {
        "name": name,
        "img_s": sizes.batch_size / timing.median,
        "spread": timing.spread,
        "dense_is_times": 1 / (1 + timing.gain),
    }


def table(report: dict) -> str:
    """The report as Markdown."""
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
    text = markdown(header, rows)
    if report["peers"]:
        peers = [
            [peer["name"], f"{peer['img_s']:.2f} ±{100 * peer['spread']:.0f}%", f"{peer['dense_is_times']:.2f}×"]
            for peer in report["peers"]
        ]
        text += "\n" + markdown(["peer", "img/s", "our dense model is"], peers)
    if "data_img_s" in report:
        text += f"\nThe data pipeline alone: {report['data_img_s']:.0f} img/s\n"
    return f"{text}\n{in_a_line(report['environment'])}\n"


def sizes_of(config: Config) -> Sizes:
    """The sizes that a configuration's model has, for peers to be built of."""
    from src.models import from_config

    network = from_config(replace(config.model, tokens="none"))
    return Sizes(
        config.model.image_size, network.patch_embed.patch_size, network.geometry.embed_dim, network.geometry.depth,
        network.blocks[0].attn.num_heads, network.geometry.num_classes, config.data.batch_size,
    )  # fmt: skip


def _conditions(config: Config, sizes: Sizes, pairs: int, steps: int, versions: Sequence[dict[str, str]]) -> dict:
    """Where and how: no figure without it."""
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


def _contestants(config: Config, sizes: Sizes, specs: Sequence[str]) -> tuple[dict, dict, dict]:
    """Runs of a training step and an inference of each spec by name, plans by spec, token moves alone by name."""
    from mindspore import Tensor

    from src.tools import token_moves

    state = _new_state(config)
    batch = [Tensor(array) for array in sizes.batch()]
    runs, plans, moves = {}, {}, {}
    for number, spec in enumerate(specs, 1):
        log.info("compiling %s (%d of %d)", spec, number, len(specs))
        runs[f"train {spec}"] = _training(config, state, spec, batch)
        network = state.network.with_tokens(spec)
        plans[spec] = network.plan
        network.set_train(False)
        runs[f"infer {spec}"] = _runner(network, batch[0], *network.draw(sizes.batch_size, 0))
        if any(network.plan.kept):
            moves[f"moves {spec}"] = token_moves.runner(network, sizes.batch_size)
    return runs, plans, moves


def _new_state(config: Config) -> "State":  # noqa: F821
    """One set of weights and one optimiser for the training steps of all specs."""
    from src.models import from_config
    from src.training.state import new_state

    return new_state(config, lambda: from_config(config.model, config.train.amp_level), [1e-4] * 100_000)


def _training(config: Config, state: "State", spec: str, batch: Sequence["Tensor"]) -> Callable[[], None]:  # noqa: F821
    """A call of a compiled training step."""
    step = state.step(config, spec)
    return _runner(step, *batch, *step.network.draw(len(batch[0]), 0))


def _runner(cell: "nn.Cell", *inputs: "Tensor") -> Callable[[], None]:  # noqa: F821
    """A call of a compiled cell that waits for its result."""
    runtime.compile_ahead(cell, *inputs)

    def run() -> None:
        output = cell(*inputs)
        (output[0] if isinstance(output, tuple) else output).asnumpy()

    return run


def _probe(config: Config) -> dict[str, float]:
    """Compile time and peak memory of training; to be run in a process of its own."""
    import resource

    from mindspore import Tensor

    runtime.set_up(config.runtime.device_target, config.runtime.fused_kernels, config.train.amp_level)
    batch, state = [Tensor(array) for array in sizes_of(config).batch()], _new_state(config)
    started = time.perf_counter()
    run = _training(config, state, config.model.tokens, batch)
    compiled = time.perf_counter() - started
    for _ in range(2):
        run()
    return {"seconds": compiled, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _probe_elsewhere(config: Config, spec: str) -> dict[str, float]:
    """Peak memory, and compile time with an empty kernel cache and with a full one."""
    log.info("memory and compile time of %s", spec)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump(replace(config, model=replace(config.model, tokens=spec))), encoding="utf-8")
        variables = {**os.environ, "MS_COMPILER_CACHE_PATH": folder}
        cold, warm = (_run_probe(file, variables) for _ in range(2))
    return {
        "peak_memory_mb": cold["megabytes"],
        "compile_s": cold["seconds"],
        "compile_cached_s": warm["seconds"],
    }


def _run_probe(file: Path, variables: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "src.tools.benchmark", "--probe", str(file)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailureError(f"measuring in a process of its own failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _is_installed(kind: str) -> bool:
    absent = missing(kind)
    if absent:
        log.warning("--peer %s is left out: %s not installed; %s", kind, ", ".join(absent), INSTALL)
    return not absent


def _time_data(config: Config) -> float:
    """Images per second of one epoch of a configuration's training data, without a model."""
    from src.data import batches, train_loader
    from src.sources import open_source

    source = open_source(config.data)
    runtime.set_seeds(config.train.seed, 1)
    loader = train_loader(source, config, config.model.num_classes or len(source.classes), epoch=1)
    started, images = time.perf_counter(), 0
    for batch, _ in batches(loader, output_numpy=True):
        images += len(batch)
    return images / (time.perf_counter() - started)


def _with_dense_first(specs: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(["none", *(str(parse(spec)) for spec in specs)]))


def _config(args: argparse.Namespace) -> Config:
    overrides = [
        f"model.name={args.model}", f"model.image_size={args.image_size}", f"data.batch_size={args.batch_size}",
        "data.mixup=0.0", "data.cutmix=0.0", f"train.amp_level={PRECISION[args.precision]}",
        f"train.loss_scale_type={'fixed' if args.precision == 'float32' else 'dynamic'}", "train.loss_scale=1024",
        "model.drop_path_rate=0.0", "train.ema_decay=null", "runtime.device_target=CPU", *args.overrides,
    ]  # fmt: skip
    config = with_classes(load(args.config or CONFIG, overrides))
    if not isinstance(config.model.image_size, int):
        raise UserError("the benchmark's images are square; give --image_size one number")
    runtime.set_up(config.runtime.device_target, config.runtime.fused_kernels, config.train.amp_level)
    return config


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--specs", nargs="+", default=tuple(TABLE1), metavar="SPEC", help="schedules (Table 1); none is added"
    )
    parser.add_argument("--model", default="skipvit_s_16_224", metavar="NAME", help="skipvit_{ti,s,b}_16_224")
    parser.add_argument("--image_size", type=cli.positive, default=224, metavar="N", help="pixels of a side (224)")
    parser.add_argument("--batch_size", type=cli.positive, default=16, metavar="N", help="images of a batch (16)")
    parser.add_argument("--precision", choices=PRECISION, default="float32")
    parser.add_argument("--pairs", type=cli.positive, default=5, metavar="N", help="rounds of turns (5)")
    parser.add_argument("--steps", type=cli.positive, default=1, metavar="N", help="timed steps of a turn (1)")
    parser.add_argument(
        "--peer", action="append", default=[], choices=("transformers", "mindcv"), help="also measure it (repeatable)"
    )
    parser.add_argument("--data", default="", metavar="CONFIG", help="also time the data pipeline of a configuration")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--markdown", metavar="FILE", help="write the table")
    parser.add_argument("--png", metavar="FILE", help="draw them")
    parser.add_argument("--probe", help=argparse.SUPPRESS)  # what measures in another process
    return parser


if __name__ == "__main__":
    cli.run(main)

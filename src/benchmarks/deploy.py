"""Measure the latency of exported files in what opens them, and say where a schedule does not pay."""

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Optional

from src import markdown
from src.benchmarks.measure import Report, conditions, peer_sizes
from src.benchmarks.peers import Peer, is_installed
from src.benchmarks.runtimes import RuntimeSettings
from src.benchmarks.timing import Timing, gain_text, share_of_ideal, take_turns
from src.config import Config, sides, with_tokens
from src.errors import UserError
from src.export.checks import refuse_for_training
from src.progress import Progress
from src.runtime import device
from src.runtime.environment import one_line
from src.schedules import Geometry, parse, resolve

SPECS = ("none", "6(55%)+11", "6(45%)+fused")
RUNTIMES = {
    "onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8"), "mindir": ("float32",)
}  # fmt: skip

LEAST_ROUNDS = 3
MOST_OF_IDEAL = 1.25  # (1 + gain) / (1 + ideal gain) that a quiet machine may show

log = logging.getLogger("skipvit")


class Case(NamedTuple):
    """A file in a runtime."""

    runtime: str
    precision: str
    batch_size: int
    spec: str

    @property
    def dense(self) -> "Case":
        return self._replace(spec="none")

    @property
    def file(self) -> str:
        """The name of the file that it opens."""
        kind = "mindir" if self.runtime == "mindir" else "int8.onnx" if self.precision == "int8" else "onnx"
        return f"{self.batch_size}-{self.spec.encode().hex()}.{kind}"  # MindSpore takes few other letters in a name


def measure_latency(config: Config, specs: Sequence[str], rounds: int, steps: int) -> Report:
    """Measure every schedule at batch 1 and at `data.batch_size`, in every runtime that is installed, in turns.

    Args:
        specs: Schedules; gains are over the dense model, which is added.
        rounds: Rounds in which every file has a turn: a run that is not timed, and then the timed ones.
        steps: Timed runs of a turn.

    Raises:
        UserError: The configuration is for another device.
    """
    specs = list(dict.fromkeys(["none", *(str(parse(spec)) for spec in specs)]))
    sizes = sorted({1, config.data.batch_size})
    if config.runtime.device_target != "CPU":
        raise UserError("--deploy measures on this machine's CPU; add --device_target CPU")
    for spec in specs:
        refuse_for_training(parse(spec))
    device.set_up("CPU", fused_kernels="off")
    cases = [
        Case(runtime, precision, size, spec)
        for runtime, precisions in RUNTIMES.items() if is_installed(runtime)
        for precision in precisions for size in sizes for spec in specs
    ]  # fmt: skip
    with TemporaryDirectory() as folder, ExitStack() as stack:
        _write_files(config, cases, Path(folder))
        runs: dict[Case, Callable[[], float]] = {}
        versions = []
        for runtime in dict.fromkeys(case.runtime for case in cases):
            own = [case for case in cases if case.runtime == runtime]
            peer = Peer(runtime, _settings(config, own, Path(folder)))
            stack.callback(peer.close)
            runs.update(zip(own, peer.contestants().values()))  # type: ignore[arg-type]  # its seconds
            versions.append(peer.versions)
        log.info("timing %d files; rounds: %d, runs of a turn: %d", len(cases), rounds, steps)
        with Progress(rounds * len(runs), "timing", "turns") as bar:
            turns = {case: partial(turn, run, steps) for case, run in runs.items()}
            seconds = take_turns(turns, rounds, lambda: bar.advance(1))
    ideal = {spec: resolve(parse(spec), Geometry.from_config(config.model)).ideal_gain for spec in specs}
    return {
        "environment": conditions(config, peer_sizes(config), rounds, steps, versions),
        "rows": [_row(case, seconds, ideal[case.spec]) for case in cases],
    }


def turn(run: Callable[[], float], steps: int) -> list[float]:
    """Return the seconds of each run of a turn, after one that does not count."""
    run()
    return [run() for _ in range(steps)]


def pays(gains: Sequence[float], ideal: float) -> str:
    """Return whether a schedule is faster than dense: `yes` or `no` where all rounds agree, and `unclear`.

    It is unclear too after fewer than three rounds, and where the median gain is so far above the ideal one that other
    work must have disturbed the measurement.
    """
    disturbed = share_of_ideal(statistics.median(gains), ideal) > MOST_OF_IDEAL
    if len(gains) < LEAST_ROUNDS or disturbed:
        return "unclear"
    return "yes" if min(gains) > 0 else "no" if max(gains) <= 0 else "unclear"


def table(report: Report) -> str:
    """Return the report as Markdown, and below it where skipping does not pay."""
    header = ["runtime", "precision", "batch", "schedule", "p50 ms", "p95 ms", "img/s", "gain (rounds)", "ideal",
              "pays"]  # fmt: skip
    rows = [
        [
            row["runtime"], row["precision"], str(row["batch_size"]), f"`{row['spec']}`", f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}", f"{row['img_s']:.1f}", gain_text(row),
            f"{100 * row['ideal_gain']:+.1f}%", row["pays"] or "",
        ]
        for row in report["rows"]
    ]  # fmt: skip
    text = "\n".join(_sentences(report["rows"]))
    note = "p50 and p95 are of all runs; gains are medians over the rounds of dense / schedule within a round."
    return f"{markdown.table(header, rows)}\n{note}\n\n{text}\n\n{one_line(report['environment'])}\n"


def _sentences(rows: Sequence[Report]) -> list[str]:
    """Return where skipping does not pay, and where it cannot be told."""
    said = []
    for verdict, words in (("no", "Skipping does not pay in"), ("unclear", "Whether it pays cannot be told in")):
        found = [row for row in rows if row["pays"] == verdict]
        names = [f"{row['runtime']} {row['precision']}, batch {row['batch_size']}, `{row['spec']}`" for row in found]
        said += [f"{words}: {'; '.join(names)}."] if names else []
    return said or ["Skipping pays in every row."]


def _row(case: Case, seconds: Mapping[Case, list[list[float]]], ideal: float) -> dict[str, Any]:
    """Return a case's figures; gains are over the dense model in the same runtime, precision and batch."""
    of_turn = {one: tuple(statistics.median(turn) for turn in seconds[one]) for one in (case, case.dense)}
    timing = Timing(of_turn[case], of_turn[case.dense])
    single = sorted(second for turn in seconds[case] for second in turn)
    p95 = single[min(len(single) - 1, int(0.95 * len(single)))]
    verdict: Optional[str] = None if case.spec == "none" else pays(timing.gains, ideal)
    return {
        **case._asdict(), "p50_ms": 1000 * statistics.median(single), "p95_ms": 1000 * p95,
        "img_s": case.batch_size / statistics.median(single), **timing.gain_figures,
        "ideal_gain": ideal, "pays": verdict,
    }  # fmt: skip


def _settings(config: Config, cases: Sequence[Case], folder: Path) -> RuntimeSettings:
    files = [(" ".join(map(str, case)), str(folder / case.file), case.precision) for case in cases]
    shape = (3, *sides(config.model.image_size))
    return RuntimeSettings(files, shape, [case.batch_size for case in cases])


def _write_files(config: Config, cases: Sequence[Case], folder: Path) -> None:
    """Write the files of all cases, with the same random weights."""
    from src.export import mindir
    from src.export.form import Form
    from src.export.onnx import file as onnx
    from src.models import from_config
    from src.weights import Checkpoint

    network = from_config(config.model).set_train(False)
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    checkpoint = Checkpoint(Path("random weights"), arrays, None)
    files = {case.file: case for case in cases}
    with Progress(len(files), "writing", "files") as bar:
        for name in sorted(files, key=lambda name: "int8" in name):  # these are made of the others
            case = files[name]
            if case.runtime == "mindir":
                own = network.with_tokens(case.spec).set_train(False)
                mindir.write(folder / name, own, Form(batch_size=case.batch_size), config)
            elif case.precision == "int8":
                _quantise(folder / name.replace(".int8", ""), folder / name)
            else:
                form = Form(batch_size=case.batch_size)
                onnx.write(folder / name, with_tokens(config, case.spec), checkpoint, form, {})
            bar.advance(1)


def _quantise(file: Path, output: Path) -> None:
    """Write an ONNX file whose matrices of weights are int8, one scale for each column."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().addHandler(logging.NullHandler())  # or it would give the root one that prints all a second time
    logging.disable(logging.WARNING)  # it advises to optimise first what the writer has optimised
    try:
        quantize_dynamic(file, output, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)

"""The finished trainings of an experiment: results, with their costs relative to the dense one of the same seed."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Optional

from src.config import Config, ImageSize
from src.experiments.costs import Spent, compare, follow, size_of
from src.experiments.jobs import Job
from src.experiments.results import TrainingResult
from src.experiments.speeds import Speeds, is_of_one_model, kind_of
from src.experiments.variants import DENSE, Variant
from src.runs import Metrics


@dataclass(frozen=True)
class Finished:
    """A finished training.

    Attributes:
        spent: What it cost, epoch by epoch; empty if the run does not say how many images it trained with.
    """

    result: TrainingResult
    spent: Sequence[Spent]


def collect(jobs: Iterable[Job], config: Config, speeds: Optional[Speeds]) -> list[Finished]:
    """Read finished trainings.

    Args:
        config: The experiment's.
        speeds: Measured ones, instead of those of the trainings; they must be of all steps (`are_all`).
    """
    found = [_read(job, config, speeds) for job in jobs]
    dense = {run.result.seed: run.spent for run in found if run.result.variant == DENSE and run.spent}
    return [_compared(run, dense.get(run.result.seed)) for run in found]


def are_all(speeds: Optional[Speeds], jobs: Iterable[Job], config: Config) -> bool:
    """Tell whether the training steps of all finished trainings were measured, so that their speeds can be compared."""
    return speeds is not None and all(
        is_of_one_model(job.variant) and {kind_of(*step, config) for step in steps(job)} <= speeds.img_s.keys()
        for job in jobs
    )


def steps(job: Job) -> list[tuple[str, ImageSize]]:
    """Return schedule and image size of every training step that a finished training had compiled."""
    return list(dict.fromkeys((row.tokens, size_of(row, job.config)) for row in job.run.read_metrics()))


def curves(found: Iterable[Finished]) -> dict[Variant, list[Sequence[Spent]]]:
    """Return each variant's trainings, one a seed; all multiplications of the dense training of the seed are 1."""
    found = [run for run in found if run.spent]
    whole = {run.result.seed: run.spent[-1].macs for run in found if run.result.variant == DENSE}
    lines: dict[Variant, list[Sequence[Spent]]] = {}
    for run in found:
        if run.result.seed in whole:
            relative = [replace(epoch, macs=epoch.macs / whole[run.result.seed]) for epoch in run.spent]
            lines.setdefault(run.result.variant, []).append(relative)
    return lines


def _read(job: Job, config: Config, speeds: Optional[Speeds]) -> Finished:
    def img_s(row: Metrics) -> float:
        assert speeds is not None
        return speeds.img_s[kind_of(row.tokens, size_of(row, job.config), config)]

    rows, result = job.run.read_metrics(), job.result()
    if speeds and not job.variant.has_phases:
        result = replace(result, img_s=img_s(rows[-1]))
    images = job.images_of_epoch
    return Finished(result, follow(rows, job.config, images, img_s if speeds else None) if images else [])


def _compared(run: Finished, dense: Optional[Sequence[Spent]]) -> Finished:
    if not (run.spent and dense):
        return run
    return replace(run, result=replace(run.result, **asdict(compare(run.spent, dense))))

"""An experiment: variants and seeds, their trainings in one folder, its table and plots."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from src.config import Config, changed, format_override, load, with_classes
from src.config.files import Overrides
from src.data.datasets import open_dataset
from src.errors import UserError, short_value
from src.experiments import finished, grids, speeds, table
from src.experiments.jobs import Job, run_jobs
from src.experiments.paired import Rule
from src.experiments.results import Summary, summarise, write_results
from src.experiments.variants import DENSE, Variant
from src.files import lock, make_folder, write_text
from src.runs import RUNS, RunFolder
from src.schedules import Geometry, parse, resolve
from src.schedules.phases import plan_phases, ranks_by_predictor, resolve_phases, with_predictors
from src.weights.oracle import check_oracle
from src.weights.teacher import check_predictor

SET_BY_JOBS = {"train.seed": "--seeds N gives 0 to N-1", "run.dir": "--output FOLDER holds them all"}

LONGEST = 200  # characters of a folder's name; file systems take 255 bytes

log = logging.getLogger("skipvit")


@dataclass
class Experiment:
    """The trainings of an experiment.

    Attributes:
        config: What all variants share.
        groups: Variants by the name of their group; the first group is the table's, the others are ablations.
        jobs: A training for each variant and seed.
        output: The folder of the trainings, the table and the plots.
        rule: By which a variant is called not worse.
    """

    config: Config
    groups: Mapping[str, Sequence[Variant]]
    jobs: Sequence[Job]
    output: Path
    rule: Rule

    @classmethod
    def plan(
        cls,
        file: str,
        config: Config,
        overrides: Overrides,
        groups: Mapping[str, Sequence[Variant]],
        seeds: int,
        output: Optional[Path],
        rule: Rule,
    ) -> "Experiment":
        """Plan the trainings of a configuration file; what cannot be trained is refused here.

        Args:
            output: The folder; None for runs/table1-NAME.

        Raises:
            UserError: A variant is refused, or the folder holds another experiment.
        """
        output = output or RUNS / f"table1-{Path(file).stem}"
        settings = [overrides, *(variant.settings for group in groups.values() for variant in group)]
        for key, how in SET_BY_JOBS.items():
            if any(key in given for given in settings):
                raise UserError(f"{key} differs between the trainings of an experiment; leave it out: {how}")
        variants = _distinct([DENSE, *(variant for group in groups.values() for variant in group)])
        jobs = [_job(variant, seed, file, overrides, output) for seed in range(seeds) for variant in variants]
        for job in jobs:
            job.check()
        log.info("%d trainings, of which %d are done, in %s", len(jobs), sum(j.is_finished for j in jobs), output)
        return cls(config, groups, jobs, output, rule)

    @property
    def table_file(self) -> Path:
        return self.output / "table.md"

    def check_measurable(self) -> None:
        """Refuse variants whose speeds cannot be compared.

        Raises:
            UserError: There is one.
        """
        speeds.check_measurable([job.variant for job in self.jobs], self.config)

    def train(self, at_a_time: int) -> None:
        """Train what is not finished, and write results and table after each training.

        Raises:
            UserError: The data of one is refused; none is started.
            RunError: A training failed.
        """
        for data in {job.config.data: None for job in self.jobs if not job.is_finished}:
            open_dataset(data)
        make_folder(self.output, "--output")
        run_jobs(self.jobs, at_a_time, self.write)

    def keep_finished(self) -> None:
        """Forget the jobs that are not finished.

        Raises:
            UserError: There is no training, or no dense one is among those that are finished.
        """
        if not any(job.run.path.is_dir() for job in self.jobs):
            raise UserError(f"{self.output} has none of these trainings; name their folder with --output")
        self.jobs = [job for job in self.jobs if job.is_finished]
        if DENSE not in {job.variant for job in self.jobs}:
            raise UserError(f"no dense training is finished in {self.output}, and all others are compared with it")

    def measure_speeds(self) -> None:
        """Measure the training steps of all trainings in turns."""
        classes = len(self.jobs[0].run.read_classes())
        steps = dict.fromkeys(step for job in self.jobs for step in finished.steps(job))
        speeds.measure_speeds(steps, with_classes(self.config, classes), self.output)

    def write(self) -> None:
        """Write results.csv and table.md of what is finished: with measured speeds where there are any."""
        found, measured = self._finished()
        results = [run.result for run in found]
        notes = table.notes(summarise(results), self.config, self.rule, measured.where if measured else None)
        text = f"{table.table(summarise(results), self.rule)}\n{notes}"
        with (self.output / "lock").open("w") as file:
            lock(file, wait=True)  # --finished may look while trainings go on
            write_results(self.output / "results.csv", results)
            write_text(self.table_file, text)

    def draw(self) -> None:
        """Draw accuracy over speed and over multiplications, top-1 by epoch, and the ablations."""
        from src.experiments import plots  # matplotlib

        found, measured = self._finished()
        summaries = summarise([run.result for run in found])
        paired = {variant for variant, own in summaries.items() if variant == DENSE or own.difference is not None}
        groups = {name: [variant for variant in group if variant in paired] for name, group in self.groups.items()}
        first, *others = groups
        shown = [summaries[variant] for variant in dict.fromkeys([DENSE, *groups[first]])]
        plots.plot_accuracy(
            [own for own in shown if own.variant == DENSE or own.gain is not None], self._png("accuracy")
        )
        tops: dict[Variant, list[list[tuple[int, float]]]] = {}
        for job in self.jobs:
            points = [(epoch.epoch, epoch.top1) for epoch in job.run.read_metrics() if epoch.top1 is not None]
            tops.setdefault(job.variant, []).append(points)
        plots.plot_curves({own.variant: tops[own.variant] for own in shown}, self._png("curves"))
        if any(own.cost is not None for own in shown):
            plots.plot_costs([own for own in shown if own.cost is not None], self.rule.allowed, self._png("costs"))
            lines = finished.curves(found)
            lines = {own.variant: lines[own.variant] for own in shown if own.variant in lines}
            plots.plot_cost_curves(lines, self._png("cost-curves"))
        ablations = {name: [summaries[variant] for variant in groups[name]] for name in others if groups[name]}
        if ablations:
            plots.plot_groups(ablations, summaries[DENSE], self._png("ablations"))
        maps = [self._panels(group, summaries, measured is not None) for group in groups.values()]
        if any(maps):
            plots.plot_distances(next(filter(None, maps)), self._png("distance"))

    def _panels(
        self, group: Sequence[Variant], summaries: Mapping[Variant, Summary], measured: bool
    ) -> Sequence[grids.Panel]:
        """Return what the heat maps of a group show, if it is a grid of where tokens leave and return."""
        if any(variant.overrides for variant in group):
            return ()
        of = {variant.tokens: summaries[variant] for variant in group if variant != DENSE}
        lost = {spec: found.difference or 0.0 for spec, found in of.items()}
        gain = {spec: (found.gain or 0.0) if measured else found.ideal_gain for spec, found in of.items()}
        return grids.panels(lost, gain, "dense", summaries[DENSE].top1, measured)

    def _finished(self) -> tuple[list[finished.Finished], Optional[speeds.Speeds]]:
        """Read what is finished, and the measured speeds that it is told with, where there are any."""
        jobs = [job for job in self.jobs if job.is_finished]
        measured = speeds.read_speeds(self.output)
        measured = measured if finished.are_all(measured, jobs, self.config) else None
        return finished.collect(jobs, self.config, measured), measured

    def _png(self, name: str) -> Path:
        return self.output / f"{name}.png"


def _distinct(variants: Sequence[Variant]) -> list[Variant]:
    """Return each variant once, with its name if it has one anywhere.

    Raises:
        UserError: Two would be trained in one folder, or one has no fit name for a folder.
    """
    named = {variant: variant for variant in variants if variant.name}
    distinct = [named.get(variant, variant) for variant in dict.fromkeys(variants)]
    folders: dict[str, Variant] = {}
    for variant in distinct:
        other = folders.setdefault(variant.folder, variant)
        if other != variant:
            raise UserError(f"the rows {other} and {variant} would be trained in one folder; give one of them a name:")
        if not 0 < len(variant.folder) <= LONGEST:
            raise UserError(f"the row {short_value(str(variant))} needs a name of letters and digits; add name:")
    return distinct


def _job(variant: Variant, seed: int, file: str, overrides: Overrides, output: Path) -> Job:
    """Return the training of a variant with a seed.

    Raises:
        UserError: The variant cannot be trained.
    """
    run = RunFolder(output / variant.folder / f"seed{seed}")
    settings = {**overrides, **variant.settings, "train.seed": seed, "run.dir": str(run.path)}
    config = with_predictors(load(file, settings))
    if not any(ranks_by_predictor(phase.tokens) for phase in plan_phases(config)):  # such as the dense row of a recipe
        settings.update((f"predictor.{name}", default) for name, default in changed(config.predictor).items())
        config = with_predictors(load(file, settings))
    resolve(parse(config.model.tokens), Geometry.from_config(config.model))
    resolve_phases(config)
    check_oracle(config)
    check_predictor(config)
    arguments = [format_override(key, value) for key, value in settings.items()]
    return Job(variant, seed, config, run, ("--config", file, *arguments))

"""What the entry points do: data, network and run folder brought together."""

import dataclasses
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Optional

from src import cli, runtime
from src.config import Config, dump, load, with_classes
from src.data import check_transforms, val_loader
from src.distributed import Group
from src.environment import environment
from src.errors import UserError, first_line
from src.files import write_atomically
from src.models import from_config
from src.scan import check_images
from src.sources import Source, check_sizes, open_source
from src.training.evaluate import evaluate
from src.training.loop import Trainer
from src.training.run_folder import RUNS, RunFolder
from src.weights import read_checkpoint

RESUME_MAY_CHANGE = (
    "train.epochs=", "train.report=", "train.tensorboard=", "data.root=", "data.workers=", "runtime.",
)  # fmt: skip

log = logging.getLogger("skipvit")


def begin(config: Config, name: str, distribute: bool) -> None:
    """Start a new run; its folder is `run.dir`, or named after `name`.

    Args:
        distribute: As one of the processes that msrun has started.
    """
    config, source, bad_images, group = _prepare(config, distribute)
    run = RunFolder.create(config, name, source.classes) if group.leads else RunFolder(RUNS)  # of no use to others
    _train(config, source, bad_images, run, False, group)


def go_on(folder: str, overrides: Sequence[str], distribute: bool) -> None:
    """Go on with a run from its last checkpoint, under its own configuration.

    Args:
        distribute: As one of the processes that msrun has started.

    Raises:
        UserError: The folder holds no run, or an override changes what a resume may not change.
    """
    for override in overrides:
        if not override.startswith(RESUME_MAY_CHANGE):
            raise UserError(
                f"override {override!r}: a resumed run may only change train.epochs, train.report, train.tensorboard,"
                " data.root, data.workers, runtime.*"
            )
    run = RunFolder.open(folder)
    config = load(run.config, overrides)
    done = run.epochs_done
    if config.train.epochs < done:
        raise UserError(f"train.epochs {config.train.epochs}: the run {run.path} has done {done} epochs already")
    config, source, bad_images, group = _prepare(config, distribute)
    run.check_classes(source.classes)
    if group.leads:
        write_atomically(run.config, dump(config))
    _train(config, source, bad_images, run, True, group)


def evaluate_checkpoint(config: Config, path: Path, distribute: bool) -> Optional[dict[str, object]]:
    """Top-1 and top-5 (percent) of a checkpoint on the validation images, under `model.tokens`.

    Args:
        distribute: As one of the processes that msrun has started; all but the first of them return None.

    Raises:
        UserError: The checkpoint does not fit the configuration, or the data is refused.
    """
    group = _set_up(config, distribute)
    checkpoint = read_checkpoint(path)
    config = checkpoint.fill_in(config)
    network = from_config(config.model, config.train.amp_level)
    checkpoint.load_into(network)
    source = open_source(config.data, ("val",), group)
    source.check_fits(config.model.num_classes)
    run = RunFolder.of_checkpoint(path)
    if run is not None:
        run.check_classes(source.classes)
    source, _ = _check_images(config, source, group)
    accuracy = evaluate(network, val_loader(source, config, group), config.data.batch_size, group)
    if not group.leads:
        return None
    return {
        "top1": round(accuracy.top1, 4),
        "top5": round(accuracy.top5, 4),
        "images": accuracy.images,
        "tokens": str(network.plan.schedule),
    }


def _set_up(config: Config, distribute: bool) -> Group:
    options = config.runtime
    return runtime.set_up(
        options.device_target, options.fused_kernels, config.train.amp_level, options.sink, distribute
    )


def _prepare(config: Config, distribute: bool) -> tuple[Config, Source, list[str], Group]:
    group = _set_up(config, distribute)
    from_config(dataclasses.replace(config.model, num_classes=config.model.num_classes or 1))  # refuse early
    source = open_source(config.data, group=group)
    config = with_classes(config, len(source.classes))
    source.check_fits(config.model.num_classes)
    check_transforms(config)
    source, bad_images = _check_images(config, source, group)
    check_sizes(source, config.data, group)
    return config, source, bad_images, group


def _check_images(config: Config, source: Source, group: Group) -> tuple[Source, list[str]]:
    """Look at every image, in the first process; the others read what it has found."""
    if config.data.on_bad_image == "unchecked":
        return source, []
    if not group.leads:
        group.sum([0])
    checked = check_images(source, config.data.on_bad_image, runtime.cache_folder())
    if group.leads:
        group.sum([0])
    return checked


def _train(
    config: Config, source: Source, bad_images: Sequence[str], run: RunFolder, resume: bool, group: Group
) -> None:
    cli.start_log(run.log if group.leads else None, quiet=not group.leads)
    log.info("run folder: %s", run.path)
    with run.lock() if group.leads else nullcontext():
        if bad_images and group.leads:
            write_atomically(run.bad_images, "".join(f"{line}\n" for line in bad_images))
        if group.leads:
            run.note_environment({**environment(config), "processes": group.size})
        Trainer(config, source, lambda: from_config(config.model, config.train.amp_level), run, group).train(resume)
        if config.train.report and group.leads:
            _report(run)


def _report(run: RunFolder) -> None:
    """Write the run's report; whatever becomes of it, the training is done."""
    try:
        from src.report import write_report  # jinja2 and matplotlib, for those who want it

        write_report([str(run.path)], run.report)
        log.info("report: %s", run.report)
    except Exception as error:
        log.warning("there is no report: %s: %s", type(error).__name__, first_line(error))

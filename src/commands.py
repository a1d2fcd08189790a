"""What the entry points do: device, data, model, run folder and callbacks, wired in one place.

Whatever can be refused without a tensor or an image is refused before MindSpore is imported.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from src import cli
from src.config import Config, Role, dump, format_override, keys_with, load, with_classes
from src.config.files import Overrides
from src.data.datasets import Dataset, check_sizes, open_dataset
from src.data.verify import verify_images
from src.errors import UserError, plain, short_message
from src.files import write_text
from src.runs import RunFolder
from src.runtime import device
from src.runtime.distributed import ProcessGroup, check_launched
from src.runtime.environment import memory
from src.runtime.signals import STOP
from src.schedules import Geometry, parse, resolve
from src.weights import read_checkpoint

if TYPE_CHECKING:
    from mindspore import nn

    from src.training.callbacks import Callback

log = logging.getLogger("skipvit")


def train(config: Config, name: str, distribute: bool, left_open: Sequence[str] = ()) -> None:
    """Start a new run in the folder `run.dir`, or in one named after `name`.

    Args:
        distribute: Train as one of the processes that msrun started.
        left_open: What the configuration did not set, as section.key=value of the defaults; it is logged.

    Raises:
        UserError: The configuration, the data or the folder is refused.
    """
    dataset = _check(config, distribute)
    if config.run.dir is not None:
        RunFolder(config.run.dir).check_unused()
    config, dataset, bad_images, group = _prepare(config, dataset, distribute)
    run = RunFolder.create(config, name, dataset.classes) if group.is_main else None
    _train(config, dataset, bad_images, run, False, group, left_open)


def resume(folder: str, overrides: Overrides, distribute: bool) -> None:
    """Resume a run from its last checkpoint, with its saved configuration.

    Args:
        overrides: Values by key; only keys that may change on resume.
        distribute: Train as one of the processes that msrun started.

    Raises:
        UserError: The folder holds no run, or an override changes what a resume may not change.
    """
    allowed = keys_with(Role.RESUMABLE)
    for key, value in overrides.items():
        if key not in allowed:
            given = format_override(key, value)
            raise UserError(f"override {given!r}: a resumed run may only change {', '.join(allowed)}")
    run = RunFolder.open(folder)
    config = load(run.config, overrides)
    done = run.epochs_done
    if config.train.epochs < done:
        raise UserError(f"train.epochs {config.train.epochs}: the run {run.path} has done {done} epochs already")
    dataset = _check(config, distribute)
    dataset.check_classes(run.read_classes(), str(run.classes))
    config, dataset, bad_images, group = _prepare(config, dataset, distribute)
    _train(config, dataset, bad_images, run, True, group)


def evaluate(config: Config, checkpoint: Path, distribute: bool) -> Optional[dict[str, object]]:
    """Return top-1 and top-5 (percent) of a checkpoint on the validation images, under `model.tokens`.

    Args:
        distribute: Evaluate as one of the processes that msrun started; all but the first return None.

    Raises:
        UserError: The checkpoint does not fit the configuration, or the data is refused.
    """
    dataset = _check(config, distribute, splits=("val",))
    loaded = read_checkpoint(checkpoint)
    run = RunFolder.of_checkpoint(checkpoint)
    dataset.check_classes(loaded.classes or (run.read_classes() if run else ()), f"checkpoint {checkpoint}")
    config = loaded.fill_in(config)
    dataset.check_fits(config.model.num_classes or 0)
    dataset.warn_of_unused_outputs(config.model.num_classes or 0)
    group = _set_up(config, distribute)
    from src.data.loaders import val_loader
    from src.models import from_config
    from src.training.evaluate import evaluate as count_correct

    network = from_config(config.model, config.train.amp_level)
    loaded.load_into(network)
    check_sizes(dataset, config.data, group)
    dataset, _ = _verify(config, dataset, group)
    accuracy = count_correct(network, val_loader(dataset, config, group), config.data.batch_size, group)
    if not group.is_main:
        return None
    return {
        "top1": round(accuracy.top1, 4),
        "top5": round(accuracy.top5, 4),
        "images": accuracy.images,
        "tokens": str(network.plan.schedule),
    }


def check(config: Config) -> None:
    """Refuse what needs neither data nor MindSpore to be refused.

    Raises:
        UserError: The device is unknown, sizes do not fit together or not into the memory, or the schedule does not fit
            the model.
    """
    device.check_settings(config.runtime.device_target, config.runtime.sink)
    geometry = Geometry.from_config(config.model)
    if 4 * geometry.parameters > memory():
        raise UserError(
            f"the network has {geometry.parameters:,} parameters of 4 bytes, more than this machine's memory; lower"
            " model.embed_dim, model.depth, model.num_classes or model.image_size"
        )
    resolve(parse(config.model.tokens), geometry)


def _check(config: Config, distribute: bool, splits: Sequence[str] = ("train", "val")) -> Dataset:
    """Refuse what needs neither tensor nor image to be refused, and open the data."""
    check(config)
    if distribute:
        check_launched()
    dataset = open_dataset(config.data, splits)
    dataset.check_fits(config.model.num_classes or len(dataset.classes))
    return dataset


def _set_up(config: Config, distribute: bool) -> ProcessGroup:
    options = config.runtime
    return device.set_up(options.device_target, options.fused_kernels, config.train.amp_level, options.sink, distribute)


def _prepare(config: Config, dataset: Dataset, distribute: bool) -> tuple[Config, Dataset, list[str], ProcessGroup]:
    """Set up the device, and check augmentation and images."""
    group = _set_up(config, distribute)
    from src.data.transforms import check_transforms

    config = with_classes(config, len(dataset.classes))
    check_transforms(config)
    check_sizes(dataset, config.data, group)
    dataset, bad_images = _verify(config, dataset, group)
    check_sizes(dataset, config.data, group)
    return config, dataset, bad_images, group


def _verify(config: Config, dataset: Dataset, group: ProcessGroup) -> tuple[Dataset, list[str]]:
    """Decode every image once, in the first process; the others read what it found."""
    if config.data.on_bad_image == "unchecked":
        return dataset, []
    if not group.is_main:
        group.barrier()
    verified = verify_images(dataset, config.data.on_bad_image, device.cache_folder())
    if group.is_main:
        group.barrier()
    return verified


def _train(
    config: Config,
    dataset: Dataset,
    bad_images: Sequence[str],
    run: Optional[RunFolder],
    resumes: bool,
    group: ProcessGroup,
    left_open: Sequence[str] = (),
) -> None:
    from src.models import from_config
    from src.training.trainer import Trainer

    def build() -> "nn.Cell":
        return from_config(config.model, config.train.amp_level)

    writes = run if group.is_main else None
    with writes.lock() if writes else nullcontext(), STOP.graceful():  # nothing is written before the lock is held
        cli.start_log(writes.log if writes else None, quiet=not group.is_main)
        if left_open:
            log.info("set by no one, taken from the defaults: %s; --print shows all", " ".join(left_open))
        if writes:
            write_text(writes.config, dump(config))
            dataset.warn_of_unused_outputs(config.model.num_classes or 0)
            for remark in dataset.remarks:
                log.warning("%s", remark)
            _describe(writes, config, bad_images, group)
        callbacks = _callbacks(config, dataset, writes)
        trainer = Trainer(config, dataset, build, run, group, callbacks, should_stop=lambda: STOP.requested)
        trainer.train(resumes)
    if config.train.report and writes:
        _report(writes)


def _describe(run: RunFolder, config: Config, bad_images: Sequence[str], group: ProcessGroup) -> None:
    """Write what a start or a resume adds to the run folder before the first step."""
    from src.runtime.environment import environment

    log.info("run folder: %s", run.path)
    if bad_images:
        write_text(run.bad_images, "".join(f"{plain(line)}\n" for line in bad_images))
    run.add_environment({**environment(config), "processes": group.size})


def _callbacks(config: Config, dataset: Dataset, run: Optional[RunFolder]) -> list["Callback"]:
    if run is None or not config.train.tensorboard:
        return []
    from src.visuals.tensorboard import TensorBoardCallback  # tensorboardX and matplotlib, for those who want it

    return [TensorBoardCallback(config, dataset, run)]


def _report(run: RunFolder) -> None:
    """Write the run's report; a failure is a warning, for the training is done."""
    try:
        from src.visuals.report import write_report  # jinja2 and matplotlib, for those who want it

        write_report([str(run.path)], run.report)
        log.info("report: %s", run.report)
    except Exception as error:
        log.warning("there is no report: %s: %s", type(error).__name__, short_message(error))

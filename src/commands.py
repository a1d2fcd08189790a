"""What the entry points do: device, data, model, run folder and callbacks, wired in one place.

Whatever can be refused without a tensor or an image is refused before MindSpore is imported.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from src import cli
from src.config import Config, Role, dump, format_override, keys_with, load, with_classes, with_tokens
from src.config.files import Overrides
from src.config.schema import TokenLabelsConfig
from src.data import label_maps
from src.data.datasets import Dataset, check_sizes, names_digest, open_dataset
from src.data.order import steps_of
from src.data.verify import verify_images
from src.errors import Interrupted, UserError, plain, short_message
from src.files import write_text
from src.runs import RunFolder, class_names
from src.runs.images import RunImages, read_images
from src.runtime import device
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup, launched_processes
from src.runtime.environment import memory
from src.runtime.signals import STOP
from src.schedules import Geometry, parse, resolve
from src.schedules.costs import run_costs
from src.schedules.phases import config_of, plan_phases, resolve_phases, with_predictors
from src.weights import Checkpoint, read_checkpoint
from src.weights.asked import read_asked
from src.weights.frozen import Frozen
from src.weights.initial import Initial, read_initial
from src.weights.load import NamedFile, digest_of
from src.weights.oracle import check_oracle
from src.weights.teacher import check_predictor

if TYPE_CHECKING:
    from mindspore import dataset as ds
    from mindspore import nn

    from src.models.vit import SkipViT
    from src.training.callbacks import Callback
    from src.training.evaluate import Accuracy, Answers

log = logging.getLogger("skipvit")


def train(config: Config, name: str, distribute: bool, left_open: Sequence[str] = ()) -> None:
    """Start a new run in the folder `run.dir`, or in one named after `name`.

    Args:
        distribute: Train as one of the processes that msrun started.
        left_open: What the configuration did not set, as section.key=value of the defaults; it is logged.

    Raises:
        UserError: The configuration, the data or the folder is refused.
    """
    config = with_predictors(config)
    dataset = _check(config)
    initial, asked = read_initial(config, dataset.classes), _read_asked(config, dataset)
    images = _images(dataset, distribute)
    RunFolder.check_place(config)
    data, group = _prepare(config, dataset, images, distribute, initial, asked)
    run = RunFolder.create(data.config, name, dataset.classes) if group.is_main else None
    _train(data, run, False, group, left_open)


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
    dataset = _check(config)
    dataset.check_classes(run.read_classes(), str(run.classes))
    begun = run.last.exists() or run.previous.exists()
    initial = None if begun else read_initial(config, dataset.classes)
    if initial is not None:
        run.check_weights("train.init", run.init, initial.digest)
    asked = _read_asked(config, dataset)
    for key, frozen in asked.items():
        run.check_weights(key, run.asked(key), frozen.digest)
    images, before = _images(dataset, distribute), read_images(run.images)
    if before is not None:
        images.check_continues(before, run.path)
    data, group = _prepare(config, dataset, before or images, distribute, initial, asked, begun=before is not None)
    _train(data, run, True, group)


def evaluate(
    config: Config,
    checkpoint: Path,
    distribute: bool,
    tokens: Sequence[str] = (),
    output: Optional[Path] = None,
    save_tokens: bool = False,
) -> list[dict[str, object]]:
    """Return top-1 and top-5 (percent) of a checkpoint on the validation images, under each of several schedules.

    Args:
        distribute: Evaluate as one of the processes that msrun started; all but the first return nothing.
        tokens: The schedules; none for `model.tokens`.
        output: The folder to write tables, a plot and predictions to.
        save_tokens: Write kept tokens and scores of each image there too.

    Raises:
        UserError: The checkpoint does not fit the configuration, or the data is refused.
    """
    if output is not None and distribute:
        raise UserError("--output and --distribute do not go together: each process sees a part of the images alone")
    if save_tokens and output is None:
        raise UserError("--save_tokens writes to a folder: name it by --output")
    dataset = _check(config, splits=("val",))
    specs = [str(parse(spec)) for spec in tokens or [config.model.tokens]]
    loaded = read_checkpoint(checkpoint)
    dataset.check_classes(class_names(loaded), f"checkpoint {checkpoint}")
    config = loaded.fill_in(config)
    for spec in specs:
        resolve(parse(spec), Geometry.from_config(config.model))
    loaded.warn_of_pixels(config)
    dataset.check_fits(config.model.num_classes or 0)
    dataset.warn_of_unused_outputs(config.model.num_classes or 0)
    group = _set_up(config, distribute)
    networks, loader = _evaluated(config, dataset, loaded, specs, group)
    answers, found = _answer(config, networks, loader, group)
    if output is not None:
        from src.experiments import kept, matrix

        matrix.write(output, matrix.rows_of([network.plan for network in networks], answers), answers, dataset.classes)
        if save_tokens:
            kept.write(output / "tokens.npz", kept.record(networks, loader, config.data.batch_size))
    results = zip(specs, found)
    return [
        {"top1": round(accuracy.top1, 4), "top5": round(accuracy.top5, 4), "images": accuracy.images, "tokens": spec}
        for spec, accuracy in results if group.is_main
    ]  # fmt: skip


def write_label_maps(config: Config, checkpoint: Path, output: Path) -> int:
    """Write what a checkpoint's network, with all tokens, sees in each patch of every training image as label maps.

    Returns:
        The number of images.

    Raises:
        UserError: The checkpoint does not fit the configuration, or data or folder are refused.
    """
    config = replace(with_tokens(config, "none"), token_labels=TokenLabelsConfig())
    dataset = _check(config, splits=("train",))
    classes = len(dataset.classes)
    label_maps.check_output(output, classes)
    loaded = read_checkpoint(checkpoint)
    dataset.check_classes(class_names(loaded), f"checkpoint {checkpoint}")
    config = loaded.fill_in(config)
    loaded.warn_of_pixels(config)
    dataset.check_fits(config.model.num_classes or 0)
    group = _set_up(config, distribute=False)
    from src.data.loaders import whole_images
    from src.experiments.label_maps import best_of_patches
    from src.models import from_config

    network = from_config(config.model, config.train.amp_level)
    if network.geometry.prefix_tokens and not network.geometry.labels_tokens:
        log.info("the head was trained on [CLS] alone: what it says of patches is an approximation")
    loaded.load_into(network)
    dataset, _, _ = verify_images(dataset, config.data.on_bad_image, device.cache_folder(), group)
    facts = label_maps.Facts(
        images=dataset.splits["train"].num_images, grid=network.geometry.grid, classes=dataset.classes,
        digest=label_maps.training_digest(dataset), model=f"{checkpoint.name}, SHA-256 {digest_of(checkpoint)}",
    )  # fmt: skip
    maps = best_of_patches(network, whole_images(dataset, config), config.data.batch_size, classes)
    label_maps.write(output, facts, maps)
    return facts.images


def _evaluated(
    config: Config, dataset: Dataset, loaded: Checkpoint, specs: Sequence[str], group: ProcessGroup
) -> "tuple[list[SkipViT], ds.Dataset]":
    """Return a checkpoint's network under each schedule, and this process's images."""
    from src.data.loaders import val_loader
    from src.models import from_config

    network = from_config(config.model, config.train.amp_level)
    loaded.load_into(network)
    check_sizes(dataset, config.data, group)
    dataset, _, _ = verify_images(dataset, config.data.on_bad_image, device.cache_folder(), group)
    return [network.with_tokens(spec) for spec in specs], val_loader(dataset, config, group)


def _answer(
    config: Config, networks: "Sequence[SkipViT]", loader: "ds.Dataset", group: ProcessGroup
) -> "tuple[list[Answers], list[Accuracy]]":
    """Return what networks say of the images, and how much of it is right."""
    from src.training.evaluate import answer, count_correct

    with STOP.graceful() if group.size > 1 else nullcontext():  # together: one that ends alone leaves others waiting
        answers = answer(networks, loader, config.data.batch_size, group, lambda: _stop_together(group))
        return answers, [count_correct(said, group) for said in answers]


def _stop_together(group: ProcessGroup) -> None:
    """Stop here if a signal asks any process of the group to.

    Raises:
        Interrupted: It does.
    """
    requested = group.any_signal(STOP.requested)
    if requested is not None:
        raise Interrupted(requested, f"{requested.name}: stopped" if group.is_main else "")


def check(config: Config, trains: bool = True) -> None:
    """Refuse what needs neither data nor MindSpore to be refused.

    Args:
        trains: Whether it is a training's.

    Raises:
        UserError: The device is unknown, sizes do not fit together or not into the memory, or the schedule does not fit
            the model.
    """
    device.check_settings(config.runtime.device_target, config.runtime.sink)
    config = with_predictors(config)
    geometry = Geometry.from_config(config.model)
    if 4 * geometry.parameters > memory():
        raise UserError(
            f"the network has {geometry.parameters:,} parameters of 4 bytes, more than this machine's memory; lower"
            " model.embed_dim, model.depth, model.num_classes or model.image_size"
        )
    frozen = config.train.freeze_blocks or 0
    if frozen > geometry.depth:
        raise UserError(f"train.freeze_blocks {frozen}: the model has {geometry.depth} blocks; name at most as many")
    resolve(parse(config.model.tokens), geometry)
    resolve_phases(config)
    check_oracle(config)
    if trains:
        check_predictor(config)


def _check(config: Config, splits: Sequence[str] = ("train", "val")) -> Dataset:
    """Refuse what needs neither tensor nor image to be refused, and open the data."""
    check(config, trains={"train", "val"} <= {*splits})
    dataset = open_dataset(config.data, splits)
    dataset.check_fits(config.model.num_classes or len(dataset.classes))
    if "train" in splits:
        _check_updates(config, dataset)
        if config.data.on_bad_image != "skip":  # which changes the images: then when it has
            _check_label_maps(config, dataset)
    return dataset


def _check_label_maps(config: Config, dataset: Dataset) -> None:
    """Refuse label maps that a training could not use.

    Raises:
        UserError: They are missing or damaged, or of other images or classes.
    """
    if config.token_labels.maps is not None:
        label_maps.LabelMaps(config.token_labels.maps, dataset, config.model.num_classes or len(dataset.classes))


def _check_updates(config: Config, dataset: Dataset, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Refuse an epoch without an update.

    Raises:
        UserError: The images do not fill the batches of one.
    """
    if steps_of(dataset.splits["train"].num_images, config, group) == 0:
        raise UserError(
            f"train.accumulate {config.train.accumulate}: the {dataset.splits['train'].num_images} training images do"
            f" not fill so many batches of {config.data.batch_size}; lower it"
        )


def _set_up(config: Config, distribute: bool) -> ProcessGroup:
    options = config.runtime
    return device.set_up(options.device_target, options.fused_kernels, config.train.amp_level, options.sink, distribute)


def _read_asked(config: Config, dataset: Dataset) -> dict[str, Frozen]:
    return read_asked(with_classes(config, len(dataset.classes)), dataset.classes)


def _images(dataset: Dataset, distribute: bool) -> RunImages:
    counts = {name: split.num_images for name, split in dataset.splits.items()}
    return RunImages(launched_processes(distribute), counts, names_digest(dataset))


@dataclass(frozen=True)
class _Prepared:
    """What a training needs, checked: the configuration, the images without the bad ones, and what was found of those.

    Attributes:
        bad_images: A line for each.
        initial: The weights to start from; None for random ones, and for a resume from a checkpoint.
        asked: The frozen networks that the training asks, by the keys that name them.
    """

    config: Config
    dataset: Dataset
    images: RunImages
    bad_images: list[str]
    initial: Optional[Initial]
    asked: Mapping[str, Frozen]


def _prepare(
    config: Config,
    dataset: Dataset,
    images: RunImages,
    distribute: bool,
    initial: Optional[Initial],
    asked: Mapping[str, Frozen],
    begun: bool = False,
) -> tuple[_Prepared, ProcessGroup]:
    """Set up the device, and check augmentation, images, and the weights to start from and to rank by.

    Args:
        begun: Whether `images` are those that the run began with.
    """
    group = _set_up(config, distribute)
    from src.data.transforms import check_transforms

    config = with_classes(config, len(dataset.classes))
    for phase in {phase.images: phase for phase in plan_phases(config)}.values():
        check_transforms(config_of(config, phase))
    named: dict[str, NamedFile] = {**({} if initial is None else {"train.init": initial}), **asked}
    for key, read in named.items():
        if len(set(group.gather(read.digest))) > 1:
            raise UserError(f"{key} {read.file.path} is not the same file for every process")
    check_sizes(dataset, config.data, group)
    left_out = images.left_out if begun else None
    dataset, bad_images, left_out = verify_images(
        dataset, config.data.on_bad_image, device.cache_folder(), group, left_out
    )
    check_sizes(dataset, config.data, group)
    _check_updates(config, dataset, group)
    if config.data.on_bad_image == "skip":
        _check_label_maps(config, dataset)
    return _Prepared(config, dataset, replace(images, left_out=left_out), bad_images, initial, asked), group


def _train(
    data: _Prepared, run: Optional[RunFolder], resumes: bool, group: ProcessGroup, left_open: Sequence[str] = ()
) -> None:
    config, dataset = data.config, data.dataset
    from src.models import from_config
    from src.models.asked import ask
    from src.models.initial import initialise
    from src.training.trainer import Trainer

    def build() -> "nn.Cell":
        network = from_config(config.model, config.train.amp_level)
        if data.initial is not None:
            initialise(network, data.initial)
        return network

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
            _describe(writes, data)
        callbacks = _callbacks(config, dataset, writes)
        asks = ask(data.asked, config.train.amp_level)
        trainer = Trainer(config, dataset, build, run, group, callbacks, lambda: STOP.requested, asks)
        trainer.train(resumes)
    if config.train.report and writes:
        _report(writes)


def _describe(run: RunFolder, data: _Prepared) -> None:
    """Write what a start or a resume adds to the run folder before the first step."""
    from src.runtime.environment import environment

    log.info("run folder: %s", run.path)
    if data.initial is not None:
        _describe_weights("train.init", run.init, data.initial, data.config)
    for key, frozen in data.asked.items():
        _describe_weights(key, run.asked(key), frozen, data.config)
    write_text(run.phases, run_costs(data.config).table())
    if data.bad_images:
        write_text(run.bad_images, "".join(f"{plain(line)}\n" for line in data.bad_images))
    data.images.write(run.images)
    run.add_environment({**environment(data.config), "processes": data.images.processes})


def _describe_weights(key: str, noted: Path, weights: NamedFile, config: Config) -> None:
    log.info("%s names the weights of %s, SHA-256 %s", key, weights.file.path, weights.digest)
    weights.file.warn_of_pixels(config)
    for remark in weights.remarks:
        log.info("%s: %s", key, remark)
    for warning in weights.warnings:
        log.warning("%s: %s", key, warning)
    write_text(noted, json.dumps(weights.facts(), indent=1) + "\n")


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

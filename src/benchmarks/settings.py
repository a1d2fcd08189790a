"""The configuration that a benchmark measures: a recipe without what makes steps differ in length."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from src.config import Config, load, with_classes
from src.config.files import Overrides
from src.errors import UserError
from src.schedules import Geometry
from src.schedules.phases import with_predictors

DATA_PEERS = ("timm",)  # of the data pipeline; others are of the model
PRECISION = {"float32": "O0", "float16": "O2"}


DEFAULTS = {"model": "skipvit_s_16_224", "image_size": 224, "batch_size": 16, "precision": "float32"}  # of the options


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse options that what is measured has no use for.

    Args:
        given: The options data, deploy, specs, config, png and peer.

    Raises:
        UserError: One is there.
    """
    schedules = not given["data"] and not given["deploy"] and (given["specs"] or not given["config"])
    if given["png"] and not schedules:
        raise UserError("--png draws the training of schedules; leave it out, or --data, --deploy and a lone --config")
    for kind in sorted(given["peer"]):
        if kind in DATA_PEERS and not given["data"]:
            raise UserError(f"--peer {kind} is a data pipeline; add --data CONFIG")
        if kind not in DATA_PEERS and not schedules:
            raise UserError(
                f"--peer {kind} is a model that trains; leave it out, or --data, --deploy and a lone --config"
            )


def benchmark_settings(given: Mapping[str, object], of_a_configuration: bool) -> dict[str, object]:
    """Return the values by key that a benchmark sets.

    Args:
        given: The options model, image_size, batch_size and precision; None for what the user did not give.
        of_a_configuration: Whether the user named one, which then decides about what was not given.
    """
    options = given if of_a_configuration else {name: given[name] or default for name, default in DEFAULTS.items()}
    settings = {
        "model.name": options["model"],
        "model.image_size": options["image_size"],
        "data.batch_size": options["batch_size"],
        "runtime.device_target": None if of_a_configuration else "CPU",
    }
    precision = options["precision"]
    if precision is not None:
        settings["train.amp_level"] = PRECISION[str(precision)]
        settings["train.loss_scale_type"] = "fixed" if precision == "float32" else "dynamic"
        settings["train.loss_scale"] = 1024
    settings = {name: value for name, value in settings.items() if value is not None}
    if given.get("deploy") or given.get("specs"):
        settings["model.tokens"] = "none"  # the schedules are those that are named
    even = {"model.drop_path_rate": 0.0, "data.mixup": 0.0, "data.cutmix": 0.0, "train.ema_decay": None}
    return {**settings, **even}  # so that all steps take equally long


def benchmark_config(
    file: Union[str, Path], settings: Overrides, peers: Sequence[str] = (), specs: Sequence[str] = ()
) -> Config:
    """Load a configuration with settings; classes that are left to the data count as ImageNet's.

    Args:
        peers: What is measured beside it.
        specs: Schedules whose predictors the model has.

    Raises:
        UserError: It is refused, its images are not square, or the peers have no such model.
    """
    config = with_predictors(with_classes(load(file, settings)), *specs)
    if not isinstance(config.model.image_size, int):
        raise UserError("the benchmark's images are square; give --image_size one number")
    if peers and Geometry.from_config(config.model).backbone != "vit":
        raise UserError(f"--peer {peers[0]} has a ViT to measure beside ours, and no LV-ViT; leave it out")
    return config


def dense_config(file: Union[str, Path], overrides: Overrides, align: Optional[int], spec: str) -> Config:
    """Load a configuration to plan schedules for, as that of a dense model; print what its classes count as.

    Args:
        align: What `model.align_tokens` is to be; None leaves it.
        spec: A schedule whose predictors the model has.

    Raises:
        UserError: It is refused, or the overrides name a schedule.
    """
    if "model.tokens" in overrides:
        raise UserError("override 'model.tokens': the planner searches for schedules; leave it out")
    aligned = {} if align is None else {"model.align_tokens": align}
    return with_predictors(count_classes(load(file, {**overrides, "model.tokens": "none", **aligned})), spec)


def count_classes(config: Config) -> Config:
    """Give classes that the data decides ImageNet's number, and print so."""
    if config.model.num_classes is None:
        config = with_classes(config)
        print(f"model.num_classes is null, for the data decides it: counted with {config.model.num_classes}\n")
    return config

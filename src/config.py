"""Typed configuration: load from YAML, override by `section.key=value`, validate, dump."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from src.errors import UserError

_CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)


def _number(value: object) -> object:
    """YAML reads 5e-4 (without a dot) as text; people write it."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _switch(value: object) -> object:
    """YAML reads on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict(), BeforeValidator(_number)]
NonNegative = Annotated[Real, Field(ge=0)]
Positive = Annotated[Real, Field(gt=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
Probability = Annotated[Real, Field(ge=0, lt=1)]
Count = Annotated[Whole, Field(ge=1, le=10**9)]
Size = Annotated[Whole, Field(ge=1, le=2**14)]
Area = Annotated[Real, Field(gt=0, le=1)]
Pair = Annotated[tuple[Positive, Positive], BeforeValidator(_sequence)]
Triple = Annotated[tuple[Real, Real, Real], BeforeValidator(_sequence)]
IMAGENET_CLASSES = 1000
FOLDER_ONLY = ("val_fraction", "scale", "ratio", "crop_pct")
ImageSize = Union[Size, Annotated[tuple[Size, Size], BeforeValidator(_sequence)]]


@dataclass(frozen=True, config=_CLOSED)
class ModelConfig:
    """The network. Sizes left null are those of `name`."""

    name: str = "skipvit_s_16_224"
    tokens: str = "none"
    image_size: ImageSize = 224
    num_classes: Optional[Count] = None
    patch_size: Optional[Size] = None
    embed_dim: Optional[Size] = None
    depth: Optional[Annotated[Whole, Field(ge=1, le=1000)]] = None
    num_heads: Optional[Size] = None
    mlp_ratio: Optional[Positive] = None
    drop_rate: Probability = 0.0
    drop_path_rate: Probability = 0.0
    act: Literal["gelu_tanh", "gelu_erf"] = "gelu_tanh"
    align_tokens: Size = 1


@dataclass(frozen=True, config=_CLOSED)
class DataConfig:
    """Images and their augmentation, by MindCV's names where MindCV has one.

    CIFAR's images are padded by 4 pixels and cropped at random; `FOLDER_ONLY` is not for them.
    """

    name: Literal["folder", "cifar10", "cifar100"] = "folder"
    root: str = "sklearn:digits"
    train_split: str = "train"
    val_split: str = "val"
    val_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    batch_size: Count = 128
    workers: Annotated[Whole, Field(ge=1, le=512)] = 2
    mean: Triple = (0.485, 0.456, 0.406)
    std: Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_sequence)] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bicubic"
    crop_pct: Annotated[Real, Field(gt=0, le=1)] = 0.875
    scale: Annotated[tuple[Area, Area], BeforeValidator(_sequence)] = (0.08, 1.0)
    ratio: Pair = (0.75, 1.3333)
    hflip: Fraction = 0.5
    color_jitter: Optional[NonNegative] = None
    auto_augment: Optional[str] = None
    random_erasing: Fraction = 0.0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    mixup_prob: Fraction = 1.0
    on_bad_image: Literal["error", "skip", "unchecked"] = "error"


@dataclass(frozen=True, config=_CLOSED)
class TrainConfig:
    """Length, phases, precision and regularisation of the training, and what it leaves to look at.

    With `tensorboard`, metrics and pictures of tokens are events in RUN/tensorboard; with `report`, the end of the
    training writes RUN/report.html.
    """

    epochs: Count = 300
    warmup_dense_epochs: Annotated[Whole, Field(ge=0, le=10**9)] = 0
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = 0
    eval_every: Count = 1
    label_smoothing: Probability = 0.0
    clip_norm: Optional[Positive] = None
    ema_decay: Optional[Annotated[Real, Field(gt=0, lt=1)]] = None
    amp_level: Literal["O0", "O2", "O3"] = "O0"
    loss_scale: Annotated[Real, Field(ge=1)] = 1.0
    loss_scale_type: Literal["fixed", "dynamic"] = "fixed"
    on_nan: Literal["stop", "skip"] = "stop"
    max_skips: Count = 10
    tensorboard: Annotated[bool, Strict()] = False
    report: Annotated[bool, Strict()] = False


@dataclass(frozen=True, config=_CLOSED)
class OptimizerConfig:
    """The optimiser and the learning rate over time.

    The peak learning rate is lr * (batch_size * processes) / lr_batch_size, or lr where lr_batch_size is null. It falls
    to min_lr, or stays where it is if that is lower.
    """

    name: Literal["adamw", "momentum"] = "adamw"
    lr: Positive = 5e-4
    lr_batch_size: Optional[Count] = 512
    min_lr: NonNegative = 1e-5
    warmup_epochs: Annotated[Whole, Field(ge=0)] = 5
    weight_decay: NonNegative = 0.05
    momentum: Probability = 0.9


@dataclass(frozen=True, config=_CLOSED)
class RunConfig:
    """The run folder (null makes runs/NAME-DATE-TIME), and its checkpoints.

    There is one after each epoch, and within epochs every so many steps; the best ones are kept, and the last two.
    With `save_every_epochs`, the weights to evaluate are kept too, every so many epochs, as epoch-0010.ckpt and so on:
    `src.tools.visualize` makes pictures of a training over time from them.
    """

    dir: Optional[str] = None
    save_every_steps: Optional[Count] = None
    save_every_epochs: Optional[Count] = None
    keep_best: Annotated[Whole, Field(ge=1, le=1000)] = 1


@dataclass(frozen=True, config=_CLOSED)
class RuntimeConfig:
    """Where to compute."""

    device_target: str = "CPU"
    fused_kernels: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"
    sink: Annotated[bool, Strict()] = False


@dataclass(frozen=True, config=_CLOSED)
class Config:
    """One run, whole."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)


def load(path: Union[str, Path], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `section.key=value` overrides and validate.

    Raises:
        UserError: The file cannot be read, or as `parse`.
    """
    return parse(_read(Path(path)), str(path), overrides)


def parse(text: str, place: str, overrides: Sequence[str] = ()) -> Config:
    """As `load`, of YAML text that was found in `place`.

    Raises:
        UserError: A key or value is refused; the message names place or override, key, value and the nearest valid
            name.
    """
    tree = read_yaml(text, place)
    if not isinstance(tree, dict):
        raise UserError(f"{place}: must be a YAML mapping of sections ({', '.join(_sections())})")
    sources = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and section and name):
            raise UserError(f"override {override!r} is not of the form section.key=value")
        if section not in tree:
            tree[section], sources[(section,)] = {}, f"override {override!r}"
        if not isinstance(tree[section], dict):
            raise UserError(f"{place}: {section}: must be a section of keys, not {tree[section]!r}")
        tree[section][name] = read_yaml(text, f"override {override!r}")
        sources[(section, name)] = f"override {override!r}"
    try:
        config = TypeAdapter(Config).validate_python(tree)
    except ValidationError as invalid:
        refused = {error["loc"][:2]: _explain(error, place, sources) for error in reversed(invalid.errors())}
        raise UserError("; ".join(reversed(refused.values()))) from invalid
    _check_combinations(config, f"{place} with {' '.join(overrides)}" if overrides else place)
    return config


class _Loader(yaml.SafeLoader):
    """Safe, and without a second value for a key, of which YAML's own would take the last."""

    def compose_mapping_node(self, anchor: Optional[str]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"{key.value} stands there twice"
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def read_yaml(text: str, place: str) -> Any:
    """What YAML text says that was found in `place`.

    Raises:
        UserError: It is not YAML, or gives a key twice.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{place}{line}: is not valid YAML: {reason}") from error


def with_classes(config: Config, number: int = IMAGENET_CLASSES) -> Config:
    """The configuration with `model.num_classes` filled in where it is null, which leaves it to the data."""
    model = dataclasses.replace(config.model, num_classes=config.model.num_classes or number)
    return dataclasses.replace(config, model=model)


def dump(config: Config) -> str:
    """The configuration as YAML that `load` reads back to an equal one."""
    plain = dataclasses.asdict(config)
    return yaml.safe_dump({s: {k: _plain(v) for k, v in keys.items()} for s, keys in plain.items()}, sort_keys=False)


def keys() -> list[str]:
    """Every valid `section.key`."""
    return [f"{s.name}.{k.name}" for s in dataclasses.fields(Config) for k in dataclasses.fields(s.default_factory)]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}; name one with --config FILE") from error
    except UnicodeDecodeError as error:
        raise UserError(f"config {path} is not UTF-8 text") from error


def _sections() -> list[str]:
    return [section.name for section in dataclasses.fields(Config)]


def _explain(error: dict[str, Any], place: str, sources: dict[tuple, str]) -> str:
    """One refused value as one line: place, key, reason, value, remedy."""
    location = tuple(str(part) for part in error["loc"])
    key = ".".join(location[:2])
    place = sources.get(location[:2], place)
    if error["type"] in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        return f"{place}: unknown key {key}{_suggest(key)}"
    if len(location) == 1:
        return f"{place}: {key}: must be a section of keys, not {error['input']!r}"
    reason = "too few entries" if error["type"] == "missing" else error["msg"][0].lower() + error["msg"][1:]
    return f"{place}: {key}: {reason}, not {error['input']!r}"


def _suggest(key: str) -> str:
    """The nearest valid name: in the same section, then in any; else all of them."""
    section, dot, name = key.partition(".")
    if not dot:
        near = difflib.get_close_matches(section, _sections(), n=1)
        return f"; did you mean {near[0]}?" if near else f"; valid are {', '.join(_sections())}"
    valid = [valid.partition(".") for valid in keys()]
    siblings = [n for s, _, n in valid if s == section]
    for candidates in (siblings, [n for _, _, n in valid]):
        for near in difflib.get_close_matches(name, candidates, n=1):
            home = section if near in siblings else next(s for s, _, n in valid if n == near)
            return f"; did you mean {home}.{near}?"
    return f"; valid are {', '.join(siblings)}"


def _check_combinations(config: Config, place: str) -> None:
    data = config.data
    problem = None
    if (data.mixup or data.cutmix) and data.batch_size % 2:
        problem = f"data.batch_size {data.batch_size} must be even for data.mixup and data.cutmix"
    elif any(a > b for a, b in (data.scale, data.ratio)):
        problem = f"data.scale {list(data.scale)} and data.ratio {list(data.ratio)} must each be [smallest, largest]"
    elif data.name != "folder" and {data.train_split, data.val_split} - {"train", "test", "all"}:
        problem = f"data.train_split and data.val_split of {data.name} must be train, test or all"
    elif data.name != "folder" and any(getattr(data, key) != getattr(DataConfig(), key) for key in FOLDER_ONLY):
        problem = f"{', '.join(f'data.{key}' for key in FOLDER_ONLY)} are of image folders, not of {data.name}"
    elif data.auto_augment and data.color_jitter:
        problem = "data.color_jitter and data.auto_augment exclude each other; set one of them to null"
    if problem:
        raise UserError(f"{place}: {problem}")


def sides(image_size: ImageSize) -> tuple[int, int]:
    """Height and width, of a number for a square or of both."""
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


def peak_lr(config: Config, processes: int = 1) -> float:
    """The highest learning rate of the run, scaled linearly with the batch of all processes (arXiv 1706.02677)."""
    batch = config.data.batch_size * processes
    return config.optimizer.lr * batch / (config.optimizer.lr_batch_size or batch)

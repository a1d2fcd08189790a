"""Every key of the configuration: its type, default, bounds, meaning, and role.

docs/configuration.md is generated from these fields.
"""

import dataclasses
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from src.errors import CONTROL

IMAGENET_CLASSES = 1000


class Role(Enum):
    """A use of a key beside its meaning. Whoever treats keys differently asks for a role, never for a list of names."""

    RESUMABLE = "may change when a run is resumed"
    RECORD = "decides what is written, not what is computed"
    MACHINE = "decides where and how it is computed, not what"
    STEP_TIME = "may change the time of a training step"
    MOVABLE = "may change when a report of a run is drawn elsewhere"
    FOLDER_ONLY = "is for image folders alone"
    STATED = "is named at the start of a training where nobody set it"
    FROM_DATA = "is filled in from the data where it is null"


def key(default: object, meaning: str, *roles: Role) -> Any:
    """Define a key: a dataclass field with its meaning and its roles."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "roles": frozenset(roles)})


def _read_number(value: object) -> object:
    """Read 5e-4 as a number: YAML takes it for text because it has no dot."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _read_switch(value: object) -> object:
    """Read on and off as words: YAML takes them for true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _read_sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _check_text(value: str) -> str:
    if CONTROL.search(value):
        raise PydanticCustomError("text", "input should be text of one line without control characters")
    return value


_NUMBER = BeforeValidator(_read_number)
_SEQUENCE = BeforeValidator(_read_sequence)

Text = Annotated[str, Field(max_length=4096), AfterValidator(_check_text)]
StrictBool = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Strict(), Field(ge=0, le=10**9)]
UpToMillion = Annotated[int, Strict(), Field(ge=1, le=10**6)]
Size = Annotated[int, Strict(), Field(ge=1, le=2**14)]
UpTo1000 = Annotated[int, Strict(), Field(ge=1, le=1000)]
UpTo1000OrZero = Annotated[int, Strict(), Field(ge=0, le=1000)]
StrictFloat = Annotated[float, Strict(), _NUMBER]
NonNegative = Annotated[float, Strict(), Field(ge=0), _NUMBER]
Positive = Annotated[float, Strict(), Field(gt=0), _NUMBER]
AtLeastOne = Annotated[float, Strict(), Field(ge=1), _NUMBER]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1), _NUMBER]
Share = Annotated[float, Strict(), Field(gt=0, le=1), _NUMBER]
PartialShare = Annotated[float, Strict(), Field(gt=0, lt=1), _NUMBER]
Probability = Annotated[float, Strict(), Field(ge=0, lt=1), _NUMBER]
ImageSize = Union[Size, Annotated[tuple[Size, Size], _SEQUENCE]]
Strength = Annotated[float, Strict(), Field(ge=0, le=10), _NUMBER]
Ratio = Annotated[float, Strict(), Field(ge=0.01, le=100), _NUMBER]
Range = Annotated[tuple[Ratio, Ratio], _SEQUENCE]
ShareRange = Annotated[tuple[Share, Share], _SEQUENCE]
Channels = Annotated[tuple[Fraction, Fraction, Fraction], _SEQUENCE]
PositiveChannels = Annotated[tuple[Share, Share, Share], _SEQUENCE]

_CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)
_STEP = (Role.STEP_TIME,)
_DATA = (Role.STEP_TIME, Role.MOVABLE)
_FOLDER = (Role.STEP_TIME, Role.MOVABLE, Role.FOLDER_ONLY)
_RECORD = (Role.RECORD,)
_MACHINE = (Role.MACHINE, Role.STEP_TIME, Role.RESUMABLE)


@dataclass(frozen=True, config=_CLOSED)
class ModelConfig:
    """The network. Sizes that are null are those of `name`."""

    name: Text = key("skipvit_s_16_224", "a model of the registry", *_STEP, Role.STATED)
    tokens: Text = key("none", "the schedule, such as `6(55%)+11`", *_STEP, Role.STATED)
    image_size: ImageSize = key(224, "pixels of a square's side, or [height, width]", *_STEP, Role.STATED)
    num_classes: Optional[UpToMillion] = key(
        None, "outputs; null: as many as the data has classes", *_STEP, Role.FROM_DATA
    )
    backbone: Optional[Literal["vit", "lvvit"]] = key(
        None, "vit, or lvvit: a stem of convolutions, and a head for patch tokens (LV-ViT)", *_STEP
    )
    patch_size: Optional[Size] = key(None, "pixels of a patch's side", *_STEP)
    embed_dim: Optional[Size] = key(None, "channels of a token", *_STEP)
    depth: Optional[UpTo1000] = key(None, "blocks", *_STEP)
    num_heads: Optional[Size] = key(None, "attention heads", *_STEP)
    mlp_ratio: Optional[Positive] = key(None, "hidden channels of the MLP, relative to `embed_dim`", *_STEP)
    pool: Literal["cls", "avg"] = key(
        "cls", "what the head reads: the [CLS] token, or the mean of all tokens of a model without one", *_STEP
    )
    distilled_score: Literal["cls", "mean"] = key(
        "cls",
        "a distilled model's scores: the [CLS] token's attention, or the mean of its and the distillation token's",
        *_STEP,
    )
    predictors: Optional[UpTo1000OrZero] = key(
        None, "DynamicViT's predictors; null: as many as the schedules of the run ask", *_STEP
    )
    drop_rate: Probability = key(0.0, "dropout after position embedding, projection and MLP layers", *_STEP)
    drop_path_rate: Probability = key(0.0, "stochastic depth of the last block, rising linearly from 0", *_STEP)
    act: Literal["gelu_tanh", "gelu_erf"] = key(
        "gelu_tanh", "GELU by the tanh formula, or exactly, as timm's weights expect", *_STEP
    )
    align_tokens: Size = key(
        1, "every drop leaves a multiple of so many tokens, [CLS] and fused token included; 16 suits Ascend", *_STEP
    )


@dataclass(frozen=True, config=_CLOSED)
class DataConfig:
    """Images and their augmentation, with MindCV's names where MindCV has one.

    CIFAR's images are padded by 4 pixels and cropped at random.
    """

    name: Literal["folder", "cifar10", "cifar100"] = key("folder", "the layout below `root`", *_DATA)
    root: Text = key(
        "sklearn:digits",
        "the folder of the images, or `sklearn:digits`, or `sklearn:digits-parity`",
        *_DATA,
        Role.RESUMABLE,
        Role.STATED,
    )
    train_split: Text = key("train", "training images: a subfolder, or CIFAR's train, test or all", *_DATA)
    val_split: Text = key("val", "validation images: a subfolder, or CIFAR's train, test or all", *_DATA)
    val_fraction: PartialShare = key(
        0.2, "share held out for validation where `root` holds class folders without splits", *_FOLDER
    )
    batch_size: UpToMillion = key(128, "images of a step, of each process", *_DATA, Role.STATED)
    workers: Annotated[int, Strict(), Field(ge=1, le=512)] = key(
        2, "processes that read and augment images; 1: this one does, in a thread", *_DATA, Role.RESUMABLE
    )
    mean: Channels = key((0.485, 0.456, 0.406), "mean of each channel, of pixels from 0 to 1", *_DATA)
    std: PositiveChannels = key(
        (0.229, 0.224, 0.225), "standard deviation of each channel, of pixels from 0 to 1", *_DATA
    )
    interpolation: Literal["bilinear", "bicubic", "nearest"] = key("bicubic", "of resizing", *_DATA)
    resize: Literal["mindspore", "pil"] = key(
        "mindspore",
        "validation's resize: MindSpore's, without antialiasing, or Pillow's, as weights of PyTorch expect",
        *_DATA,
    )
    crop_pct: Share = key(0.875, "share of the resized image's side that validation crops", *_FOLDER)
    scale: ShareRange = key((0.08, 1.0), "area of a random crop, [smallest, largest], relative to the image", *_FOLDER)
    ratio: Range = key((0.75, 1.3333), "aspect ratio of a random crop, [smallest, largest]", *_FOLDER)
    hflip: Fraction = key(0.5, "probability of a horizontal flip", *_DATA)
    color_jitter: Optional[Strength] = key(None, "strength of colour jitter; not together with `auto_augment`", *_DATA)
    auto_augment: Optional[Text] = key(None, "MindCV's policy, such as `randaug-m9-mstd0.5-inc1`", *_DATA)
    repeats: UpTo1000 = key(
        1, "times that an image stands in an epoch's order, each augmented differently; 3 in DeiT's recipe", *_DATA
    )
    random_erasing: Fraction = key(0.0, "probability of random erasing", *_DATA)
    random_erasing_mode: Literal["const", "pixel"] = key(
        "const", "what is erased becomes the mean colour, or a random colour a pixel", *_DATA
    )
    mixup: NonNegative = key(0.0, "mixup's alpha; 0: off", *_DATA)
    cutmix: NonNegative = key(0.0, "CutMix's alpha; 0: off", *_DATA)
    mixup_prob: Fraction = key(1.0, "probability that a batch is mixed by mixup or CutMix", *_DATA)
    on_bad_image: Literal["error", "skip", "unchecked"] = key(
        "error",
        "an image that cannot be decoded: refuse the data, leave it out, or do not look",
        *_DATA,
        Role.RESUMABLE,
    )


@dataclass(frozen=True, config=_CLOSED)
class PhaseConfig:
    """A phase of `train.phases`: epochs that train under one schedule, at one image size, with one policy.

    With `curve`, the share that each drop takes goes from that of `from` to that of `tokens`, in plateaus of equally
    many epochs, each of which is a phase of its own.
    """

    epochs: Count = key(dataclasses.MISSING, "epochs of the phase")
    tokens: Optional[Text] = key(None, "the schedule; null: `train.tokens`, or `model.tokens` where that is null")
    image_size: Optional[ImageSize] = key(None, "of training; null: `model.image_size`, at which it is evaluated")
    auto_augment: Optional[Text] = key(None, "MindCV's policy, or `none`; null: `data.auto_augment`")
    curve: Optional[Literal["linear", "cosine"]] = key(None, "how the ratios go to those of `tokens`; null: constant")
    from_tokens: Annotated[Optional[Text], Field(alias="from")] = key(
        None, "where a curve begins: `none`, or a schedule like `tokens` of other ratios"
    )
    plateaus: Optional[UpTo1000] = key(None, "parts of a curve, a training graph each")


Phases = Annotated[tuple[PhaseConfig, ...], Field(min_length=1, max_length=1000), _SEQUENCE]


@dataclass(frozen=True, config=_CLOSED)
class TrainConfig:
    """Length, phases, precision and regularisation of the training, and what it writes to look at."""

    epochs: Count = key(300, "epochs of the whole run; with `phases`, the sum of theirs", Role.RESUMABLE, Role.STATED)
    warmup_dense_epochs: CountOrZero = key(0, "first epochs, which train dense; not together with `phases`")
    tokens: Optional[Text] = key(
        None, "the schedule of training where `model.tokens` is to evaluate alone; null: `model.tokens`"
    )
    phases: Optional[Phases] = key(
        None,
        "phases, such as `[{epochs: 15, tokens: none}, {epochs: 285}]`; null: a dense warm-up, then `tokens`",
    )
    init: Optional[Text] = key(
        None, "a file of weights to start from, of any kind that `src.tools.convert` reads; null: drawn at random"
    )
    oracle: Optional[Text] = key(
        None,
        "a file of a dense network's weights, of any kind that `src.tools.convert` reads, by whose [CLS] attention"
        " the ranking `oracle` chooses tokens, as in `tokens: 6(55%,oracle)+11`",
    )
    freeze_blocks: Optional[CountOrZero] = key(
        None, "the embedding and so many first blocks are not trained; null: all are trained", Role.STEP_TIME
    )
    accumulate: UpTo1000 = key(
        1,
        "batches whose gradients make one update: `data.batch_size` of each, and so many times it for `lr`",
        Role.STEP_TIME,
    )
    seed: Annotated[int, Strict(), Field(ge=0, lt=2**31)] = key(0, "of weights, order and augmentation")
    eval_every: Count = key(1, "epochs from one evaluation to the next; a phase's last is always evaluated")
    label_smoothing: Probability = key(0.0, "probability spread over all classes")
    clip_norm: Optional[Positive] = key(None, "bound on the gradients' global norm; null: none")
    ema_decay: Optional[PartialShare] = key(
        None, "decay of the weights' moving average, which is then evaluated; null: none"
    )
    amp_level: Literal["O0", "O2", "O3"] = key(
        "O0", "O0: float32; O2: float16 but for norms, softmax, scores and gathers; O3: float16 norms too"
    )
    loss_scale: AtLeastOne = key(1.0, "factor on the loss; the first one if dynamic")
    loss_scale_type: Literal["fixed", "dynamic"] = key("fixed", "dynamic: halved at an overflow, grown later")
    on_nan: Literal["stop", "skip"] = key("stop", "at a loss or gradients that are not finite")
    max_skips: Count = key(10, "steps of an epoch that `on_nan: skip` leaves out at most")
    tensorboard: StrictBool = key(
        False, "write events of metrics and token pictures to RUN/tensorboard", *_RECORD, Role.RESUMABLE
    )
    report: StrictBool = key(False, "write RUN/report.html at the end", *_RECORD, Role.RESUMABLE)


@dataclass(frozen=True, config=_CLOSED)
class TokenLabelsConfig:
    """Labels of the patch tokens, for `model.backbone: lvvit` (arXiv 2104.10858)."""

    maps: Optional[Text] = key(
        None,
        "a folder of label maps, such as `src.tools.label_maps` writes; null: a patch has the label of its image",
        *_DATA,
        Role.RESUMABLE,
    )
    weight: NonNegative = key(1.0, "weight of the patches' loss beside the image's")
    mix_alpha: NonNegative = key(
        0.0, "MixToken's alpha: a box of the tokens is another image's; 0: off; in place of mixup and CutMix", *_STEP
    )


@dataclass(frozen=True, config=_CLOSED)
class PredictorConfig:
    """Training of the ranking `predictor` (DynamicViT, arXiv 2106.02034)."""

    teacher: Optional[Text] = key(
        None,
        "a file of a dense network's weights, of any kind that `src.tools.convert` reads, to distil from; null: none",
        Role.STEP_TIME,
    )
    ratio_weight: NonNegative = key(2.0, "weight of the loss that holds the shares of kept tokens to the schedule's")
    logits_weight: NonNegative = key(0.5, "weight of the distance between the teacher's classes and the network's")
    tokens_weight: NonNegative = key(0.5, "weight of the distance between the teacher's tokens and the kept ones")
    frozen_epochs: CountOrZero = key(0, "first epochs in which the predictors alone are trained")
    backbone_lr: Share = key(1.0, "share of the learning rate for all weights but the predictors'")


@dataclass(frozen=True, config=_CLOSED)
class OptimizerConfig:
    """The optimiser and the learning rate over time.

    The peak learning rate is lr * (batch_size * processes) / lr_batch_size, or lr where lr_batch_size is null. It falls
    to min_lr, or stays where it is if that is lower.
    """

    name: Literal["adamw", "momentum"] = key("adamw", "the optimiser")
    lr: Positive = key(5e-4, "peak learning rate for a batch of `lr_batch_size`", Role.STATED)
    lr_batch_size: Optional[Count] = key(512, "batch that `lr` is for; null: `lr` is not scaled with the batch")
    min_lr: NonNegative = key(1e-5, "learning rate at the end of the cosine")
    warmup_epochs: CountOrZero = key(5, "epochs in which the learning rate rises linearly")
    weight_decay: NonNegative = key(0.05, "of all weights but biases, norms, [CLS] and positions")
    momentum: Probability = key(0.9, "of `name: momentum`")
    layer_decay: Optional[Share] = key(
        None,
        "factor on the learning rate from each layer to the one before it: norm and head have all of it, the last"
        " block this share, the embedding that to the power of `depth` + 1; null: all the same",
    )


@dataclass(frozen=True, config=_CLOSED)
class RunConfig:
    """The run folder and its checkpoints: one after each epoch, and now and then within it."""

    dir: Optional[Text] = key(None, "the run folder; null: runs/NAME-DATE-TIME", *_RECORD)
    save_every_steps: Optional[Count] = key(
        1000, "steps from one checkpoint to the next within an epoch; null: only after each", *_RECORD, Role.RESUMABLE
    )
    save_every_epochs: Optional[Count] = key(
        None,
        "keep the weights to evaluate, every so many epochs, as epoch-0010.ckpt and so on",
        *_RECORD,
        Role.RESUMABLE,
    )
    keep_best: UpTo1000 = key(1, "best checkpoints to keep", *_RECORD)


@dataclass(frozen=True, config=_CLOSED)
class RuntimeConfig:
    """The device."""

    device_target: Text = key("CPU", "CPU or Ascend", *_MACHINE, Role.MOVABLE)
    fused_kernels: Annotated[Literal["auto", "on", "off"], BeforeValidator(_read_switch)] = key(
        "auto", "fuse small operators on CPU; auto: where that works", *_MACHINE
    )
    sink: StrictBool = key(False, "send batches through MindSpore's queue to the device; not on CPU", *_MACHINE)


@dataclass(frozen=True, config=_CLOSED)
class Config:
    """The configuration of one run."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    token_labels: TokenLabelsConfig = dataclasses.field(default_factory=TokenLabelsConfig)
    predictor: PredictorConfig = dataclasses.field(default_factory=PredictorConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)


SECTIONS: dict[str, type] = {
    "model": ModelConfig, "data": DataConfig, "train": TrainConfig, "token_labels": TokenLabelsConfig,
    "predictor": PredictorConfig, "optimizer": OptimizerConfig, "run": RunConfig, "runtime": RuntimeConfig,
}  # fmt: skip


def fields_by_key() -> dict[str, "dataclasses.Field[Any]"]:
    """Return the field of every "section.key", in the order of the file."""
    return {
        f"{name}.{field.name}": field for name, section in SECTIONS.items() for field in dataclasses.fields(section)
    }


def keys_with(role: Role) -> list[str]:
    """Return every "section.key" that has a role."""
    return [name for name, field in fields_by_key().items() if role in field.metadata["roles"]]


def flatten(config: Config) -> dict[str, object]:
    """Return the values of a configuration by "section.key"."""
    return {name: getattr(getattr(config, section), attribute)
            for name in fields_by_key() for section, attribute in [name.split(".")]}  # fmt: skip


def first_changed(section: Any) -> Optional[str]:
    """Return the first key of a section that is not as by default; None if all are."""
    return next(iter(changed(section)), None)


def changed(section: Any) -> dict[str, object]:
    """Return the keys of a section that are not as by default, with their defaults."""
    defaults = {field.name: getattr(type(section)(), field.name) for field in dataclasses.fields(section)}
    return {name: default for name, default in defaults.items() if getattr(section, name) != default}


def with_classes(config: Config, number: int = IMAGENET_CLASSES) -> Config:
    """Fill in `model.num_classes` where it is null, which leaves it to the data."""
    model = dataclasses.replace(config.model, num_classes=config.model.num_classes or number)
    return dataclasses.replace(config, model=model)


def side_text(image_size: ImageSize) -> str:
    """Return an image size as it is told: 224, or 192x256."""
    height, width = sides(image_size)
    return str(height) if height == width else f"{height}x{width}"


def read_side(text: str) -> ImageSize:
    """Return the image size that `side_text` told."""
    height, _, width = text.partition("x")
    return (int(height), int(width)) if width else int(height)


def with_tokens(config: Config, tokens: str, image_size: Optional[ImageSize] = None) -> Config:
    """Replace the schedule, and the image size where one is given."""
    size = config.model.image_size if image_size is None else image_size
    return dataclasses.replace(config, model=dataclasses.replace(config.model, tokens=tokens, image_size=size))


def sides(image_size: ImageSize) -> tuple[int, int]:
    """Return height and width in pixels of a square's side or of both."""
    return (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])

"""Load checkpoints into networks."""

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from src.config import Config, format_override, parse, with_classes
from src.errors import UserError, first_few
from src.schedules import Geometry
from src.schedules.geometry import STEM_CHANNELS
from src.schedules.phases import ranks_by_predictor
from src.weights.files import read_weights
from src.weights.positions import adapt
from src.weights.timm import PREDICTORS, from_timm

if TYPE_CHECKING:
    from mindspore import nn


MOST_TIMES_LARGER = 16
PREFIX = ("cls_token", "dist_token")  # whose positions stand before the patches'
HEADS = ("head.", "head_dist.", "aux_head.")  # how the names of the classifiers' weights begin
STEM = "patch_embed.conv1.weight"  # the first convolution, of models with a stem
# the weights that tell a ViT's sizes, and their dimensions
TELLING = {"pos_embed": 3, "patch_embed.proj.weight": 2, "blocks.0.mlp.fc1.weight": 2, "head.weight": 2}
PIXELS = ("mean", "std", "interpolation", "resize")  # keys of data that decide what a network sees of an image
WARNING = "checkpoint %s was trained on other pixels than it is shown here: it expects %s"
log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class Checkpoint:
    """The weights to evaluate in a checkpoint of this project, or in a file with timm's names.

    Attributes:
        arrays: The network's weights by our names; of a training's state the averaged ones (EMA), where it holds any.
        config: The resolved configuration, as YAML, of the training that wrote it; None if the file holds none.
        classes: The names of the outputs; none if the file holds none.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    config: Optional[str]
    classes: tuple[str, ...] = ()

    def fill_in(self, config: Config) -> Config:
        """Fill in the numbers of classes and of predictors from the weights, where the configuration leaves them open.

        Raises:
            UserError: There is no classifier, or the configuration is of a network so much larger that it is not worth
                building.
        """
        head = self.arrays.get("head.weight")
        if head is None or head.ndim != 2:
            raise UserError(f"checkpoint {self.path} does not fit the model; missing: head.weight")
        config = with_classes(config, len(head))
        found = count_predictors(self.arrays)
        if config.model.predictors is None and (found or ranks_by_predictor(config.model.tokens)):
            config = replace(config, model=replace(config.model, predictors=found))
        needed, given = Geometry.from_config(config.model).parameters, sum(array.size for array in self.arrays.values())
        if needed > MOST_TIMES_LARGER * given:
            raise UserError(
                f"checkpoint {self.path} does not fit the model: it has {given:,} weights for {needed:,} parameters"
            )
        return config

    def warn_of_pixels(self, config: Config) -> None:
        """Log what images the weights expect, where the configuration prepares others."""
        told = self.told
        if told is None:
            if not self.config and self.path.suffix != ".ckpt" and config.data.resize != "pil":
                log.warning(WARNING, self.path, "data.resize=pil, as weights of PyTorch do")
            return
        differing = [key for key in PIXELS if getattr(told.data, key) != getattr(config.data, key)]
        if differing:
            expected = " ".join(format_override(f"data.{key}", getattr(told.data, key)) for key in differing)
            log.warning(WARNING, self.path, expected)

    @property
    def grid(self) -> Optional[tuple[int, int]]:
        """Rows and columns of the patches of the position embedding, if the file tells them or they are a square."""
        positions = self.arrays.get("pos_embed")
        if positions is None or positions.ndim != 3:
            return None
        patches = count_patches(self.arrays)
        if (told := self.told) is not None:
            rows, columns = Geometry.from_config(told.model).grid
            if rows * columns == patches:
                return rows, columns
        side = math.isqrt(max(patches, 0))
        return (side, side) if patches == side**2 > 0 else None

    @property
    def told(self) -> Optional[Config]:
        """The configuration, if the file holds one and it is of this release."""
        try:
            return parse(self.config, str(self.path)) if self.config else None
        except UserError:
            return None

    def arrays_at(self, grid: tuple[int, int], prefix: int) -> dict[str, np.ndarray]:
        """Return the arrays, with positions resampled where the images' grid is another than the weights'.

        Args:
            grid: Rows and columns of the images' patches.
            prefix: Tokens before the patches.
        """
        own = self.grid
        if own is None or own == grid:
            return self.arrays
        log.info("checkpoint %s: positions resampled from %s patches", self.path, "{}x{} to {}x{}".format(*own, *grid))
        return {**self.arrays, "pos_embed": adapt(self.arrays["pos_embed"], prefix, own, grid)}

    def load_into(self, net: "nn.Cell") -> None:
        """Set a network's weights, with positions resampled where its images are of another size.

        Raises:
            UserError: Names are missing, extra or misshapen.
        """
        assign(net, self.arrays_at(net.position_grid, net.plan.prefix), self.path)


@dataclass(frozen=True)
class NamedFile:
    """A file of weights that the configuration names.

    Attributes:
        digest: The file's SHA-256.
        remarks: What a user should know of its use; to be logged, and for the run folder.
        warnings: What of it may be a mistake.
    """

    file: Checkpoint
    digest: str
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]

    def facts(self) -> dict[str, object]:
        """Return what the run folder says of it."""
        return {"file": str(self.file.path), "sha256": self.digest, "remarks": [*self.remarks, *self.warnings]}


def digest_of(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_checkpoint(path: Union[str, Path]) -> Checkpoint:
    """Read a checkpoint's weights and configuration.

    Raises:
        UserError: The file is missing or unreadable.
    """
    saved = read_weights(path)
    return Checkpoint(Path(path), from_timm(saved.arrays), saved.config, saved.classes)


def load_timm(net: "nn.Cell", path: Union[str, Path]) -> None:
    """Load a file with timm's names into a network, of any kind that `src.weights.files.read_arrays` reads.

    Raises:
        UserError: The file is missing or unreadable, or names are missing, extra or misshapen.
    """
    read_checkpoint(path).load_into(net)


def lacking(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the weights that would tell a ViT's sizes, and are missing or of another form."""
    return [name for name, number in TELLING.items() if name not in arrays or arrays[name].ndim != number]


def count_prefix(arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many tokens stand before the patches."""
    return sum(name in arrays for name in PREFIX)


def count_patches(arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many patches a position embedding [1, T, C] is for."""
    return arrays["pos_embed"].shape[1] - count_prefix(arrays)


def count_blocks(arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many blocks have weights."""
    return len({name.split(".")[1] for name in arrays if name.startswith("blocks.")})


def count_predictors(arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many predictors have weights."""
    return len({name.split(".")[1] for name in arrays if name.startswith(PREDICTORS)})


def patch_side(arrays: Mapping[str, np.ndarray], in_channels: int) -> int:
    """Return the pixels of a patch's side; a stem halves it before the patch embedding."""
    numbers = arrays["patch_embed.proj.weight"].shape[1]
    return 2 * math.isqrt(numbers // STEM_CHANNELS) if STEM in arrays else math.isqrt(numbers // in_channels)


def shapes_of(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a model, by our names, with BatchNorm's moving averages."""
    dim, hidden = geometry.embed_dim, geometry.mlp_dim
    tokens, prefix = ["cls_token", "dist_token"][: geometry.prefix_tokens], geometry.prefix_tokens
    layers = {"patch_embed.proj": (dim, geometry.patch_dim)}
    norms = ["norm"]
    for i in range(geometry.depth):
        layers[f"blocks.{i}.attn.qkv"], layers[f"blocks.{i}.attn.proj"] = (3 * dim, dim), (dim, dim)
        layers[f"blocks.{i}.mlp.fc1"], layers[f"blocks.{i}.mlp.fc2"] = (hidden, dim), (dim, hidden)
        norms += [f"blocks.{i}.norm1", f"blocks.{i}.norm2"]
    for name in [*["head", "head_dist"][: geometry.classifiers], *["aux_head"] * geometry.labels_tokens]:
        layers[name] = (geometry.num_classes, dim)
    for i in range(geometry.predictors):
        norms.append(f"{PREDICTORS}{i}.in_norm")
        for name, (inputs, outputs) in zip(("in_proj", "out1", "out2", "out3"), geometry.predictor_layers):
            layers[f"{PREDICTORS}{i}.{name}"] = (outputs, inputs)
    without_bias = set() if geometry.qkv_bias else {name for name in layers if name.endswith("qkv")}
    return {
        **(_stem_shapes(geometry.in_channels) if geometry.has_stem else {}),
        **dict.fromkeys(tokens, (1, 1, dim)),
        "pos_embed": (1, prefix + geometry.num_patches, dim),
        **{f"{name}.weight": shape for name, shape in layers.items()},
        **{f"{name}.bias": shape[:1] for name, shape in layers.items() if name not in without_bias},
        **{f"{name}.{part}": (dim,) for name in norms for part in ("gamma", "beta")},
    }


def _stem_shapes(in_channels: int) -> dict[str, tuple[int, ...]]:
    width = STEM_CHANNELS
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (inputs, size) in enumerate(((in_channels, 7), (width, 3), (width, 3)), 1):
        shapes[f"patch_embed.conv{number}.weight"] = (width, inputs, size, size)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"patch_embed.bn{number}.{part}"] = (width,)
    return shapes


def check_fit(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], path: Union[str, Path]) -> None:
    """Refuse arrays that are not those of a model.

    Raises:
        UserError: Names are missing, extra, misshapen or no floats.
    """
    problems = [f"{kind}: {first_few(names)}" for kind, names in misfits(arrays, shapes).items() if names]
    if problems:
        raise UserError(f"checkpoint {path} does not fit the model; {'; '.join(problems)}")


def misfits(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Return all names that do not fit a model, by what is wrong with them."""
    missing = sorted(shapes.keys() - arrays.keys())
    extra = sorted(arrays.keys() - shapes.keys())
    misshapen = [
        f"{name} {list(arrays[name].shape)} for {list(shape)}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    mistyped = [f"{name} {array.dtype}" for name, array in arrays.items() if array.dtype.kind != "f"]
    return {"missing": missing, "extra": extra, "other shape": misshapen, "no float": mistyped}


def assign(net: "nn.Cell", arrays: Mapping[str, np.ndarray], path: Union[str, Path]) -> None:
    """Set every parameter of a network from arrays of the same names and shapes.

    Raises:
        UserError: Names are missing, extra, misshapen or no floats; nothing was changed.
    """
    from mindspore import Tensor

    parameters = {parameter.name: parameter for parameter in net.get_parameters()}
    check_fit(arrays, {name: tuple(parameter.shape) for name, parameter in parameters.items()}, path)
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(arrays[name], parameter.dtype))

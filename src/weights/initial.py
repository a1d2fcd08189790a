"""The weights that a training starts from, compared with its configuration before any tensor exists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from src.config import Config, ModelConfig, with_classes
from src.errors import UserError, difference
from src.schedules import Geometry
from src.weights.load import (
    HEADS,
    STEM,
    Checkpoint,
    NamedFile,
    check_fit,
    count_blocks,
    count_patches,
    count_predictors,
    digest_of,
    lacking,
    patch_side,
    read_checkpoint,
    shapes_of,
)
from src.weights.timm import PREDICTORS


@dataclass(frozen=True)
class Initial(NamedFile):
    """What `train.init` names.

    Attributes:
        arrays: The weights by our names, without heads of another number of classes.
        grid: Rows and columns of the file's position embedding.
    """

    arrays: dict[str, np.ndarray]
    grid: tuple[int, int]


def read_initial(config: Config, classes: Sequence[str]) -> Optional[Initial]:
    """Read the file that `train.init` names; None where that is null.

    Args:
        classes: Of the data.

    Raises:
        UserError: The file is missing, unreadable or damaged, or does not fit the model in more than the number of
            classes and the image size.
    """
    if config.train.init is None:
        return None
    path = Path(config.train.init)
    if not path.is_file():
        raise UserError(f"train.init {path} does not exist; name a checkpoint, or null to start at random")
    file = read_checkpoint(path)
    told = file.told.model if file.told else None
    geometry = Geometry.from_config(with_classes(config, len(classes)).model)
    _check_sizes(file, geometry, told)
    grid = file.grid
    if grid is None:
        raise UserError(f"train.init {path}: positions of {count_patches(file.arrays)} patches are of no square image")
    remarks, warnings = [], []
    if grid != geometry.grid:
        remarks.append(f"positions resampled from {_text(grid)} to {_text(geometry.grid)} patches")
    outputs, wanted = len(file.arrays["head.weight"]), geometry.num_classes
    arrays, shapes = file.arrays, shapes_of(replace(geometry, grid=grid))
    if outputs != wanted:
        arrays = {name: array for name, array in arrays.items() if not name.startswith(HEADS)}
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(HEADS)}
        remarks.append(f"the head stays as initialised: the file has {outputs} outputs, this model {wanted}")
    elif file.classes and file.classes != tuple(classes):
        differing = difference(file.classes, tuple(classes), "the file", "the data")
        warnings.append(f"the head is of as many classes, but not of these: {differing}")
    found = count_predictors(arrays)
    if found != geometry.predictors:
        arrays = {name: array for name, array in arrays.items() if not name.startswith(PREDICTORS)}
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(PREDICTORS)}
        what = "predictors stay as initialised" if geometry.predictors else "predictors are left out"
        remarks.append(f"the {what}: the file has {found}, this model {geometry.predictors}")
    if told is not None and told.act != config.model.act:
        warnings.append(f"the file was trained with model.act {told.act}, this model has {config.model.act}")
    check_fit(arrays, shapes, path)
    return Initial(file, digest_of(path), tuple(remarks), tuple(warnings), arrays, grid)


def _check_sizes(file: Checkpoint, geometry: Geometry, told: Optional[ModelConfig]) -> None:
    """Refuse other sizes than the model's by the keys that set them.

    Raises:
        UserError: The file has other sizes, or lacks what would tell them.
    """
    arrays = file.arrays
    if missing := lacking(arrays):
        raise UserError(f"train.init {file.path} does not fit the model; missing, or of another form: {missing[0]}")
    width = arrays["pos_embed"].shape[2]
    sizes = {
        "model.backbone": ("lvvit" if STEM in arrays else "vit", geometry.backbone),
        "model.embed_dim": (width, geometry.embed_dim),
        "model.patch_size": (patch_side(arrays, geometry.in_channels), geometry.patch_size),
        "model.depth": (count_blocks(arrays), geometry.depth),
        "model.num_heads": (Geometry.from_config(told).num_heads if told else geometry.num_heads, geometry.num_heads),
        "hidden channels of the MLP": (len(arrays["blocks.0.mlp.fc1.weight"]), geometry.mlp_dim),
    }
    other = [f"its {name} is {found}, not {wanted}" for name, (found, wanted) in sizes.items() if found != wanted]
    if other:
        raise UserError(f"train.init {file.path} does not fit the model: {', '.join(other)}; set what the file has")


def _text(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"

"""Take weights trained elsewhere to a checkpoint of ours with its configuration, and ours back to timm."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np

from src.config import Config, dump, parse, side_text
from src.config.files import Overrides
from src.config.variants import VARIANTS, sizes_of
from src.errors import UserError
from src.schedules import Geometry, resolve
from src.schedules import parse as parse_tokens
from src.weights.files import kind_of, read_weights, write_timm, write_weights
from src.weights.load import (
    HEADS,
    STEM,
    check_fit,
    count_blocks,
    count_patches,
    count_predictors,
    lacking,
    misfits,
    patch_side,
    shapes_of,
)
from src.weights.timm import adapt_input_channels, from_timm, to_timm

HEAD_CHANNELS = 64  # of an attention head, in nearly every model of the registry
# what images the weights of each kind of file were trained on, as their own code prepares them, and their GELU
PYTORCH: dict[str, object] = {"data.resize": "pil", "model.act": "gelu_erf"}
GOOGLE: dict[str, object] = {
    **PYTORCH, "data.mean": [0.5] * 3, "data.std": [0.5] * 3, "data.crop_pct": 0.9, "model.act": "gelu_tanh",
}  # fmt: skip
ORIGINS = {".npz": GOOGLE, ".pth": PYTORCH, ".pt": PYTORCH, ".safetensors": PYTORCH, ".ckpt": {}}
LVVIT_CROP = {"lvvit_ti_16_224": 0.9, "lvvit_s_16_224": 0.9, "lvvit_m_16_224": 1.0}  # data.crop_pct of its own code
TIMM_NAMES = {"ti": "tiny", "s": "small", "b": "base", "l": "large"}  # of our sizes


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights by our names, and the configuration of their model and its images.

    Attributes:
        in_channels: Channels of the images; our own data has 3.
    """

    arrays: dict[str, np.ndarray]
    config: Config
    classes: tuple[str, ...]
    in_channels: int

    @property
    def geometry(self) -> Geometry:
        return dataclasses.replace(Geometry.from_config(self.config.model), in_channels=self.in_channels)

    def summary(self) -> list[str]:
        """Return what a user should know of them, a line each."""
        model, data, geometry = self.config.model, self.config.data, self.geometry
        lines = [
            f"{model.name}: {geometry.parameters:,} parameters, {side_text(model.image_size)} pixels,"
            f" {geometry.num_classes} classes, {model.act}, tokens {model.tokens}",
            f"images: data.resize={data.resize} data.interpolation={data.interpolation} data.crop_pct={data.crop_pct:g}"
            f" data.mean={list(data.mean)} data.std={list(data.std)}".replace(", ", ","),
        ]
        if self.in_channels != 3:
            lines.append(
                f"images of {self.in_channels} channels: for create_model(in_channels={self.in_channels}) alone"
            )
        return lines


def read(
    path: Path, overrides: Overrides, part: str, num_classes: Optional[int], in_channels: Optional[int]
) -> Weights:
    """Read weights of any kind, and make head and input fit if asked to. Each name that does not fit is printed.

    Args:
        overrides: Configuration of the model and its images where the file does not tell it, or tells another.
        part: Of a training's checkpoint of PyTorch, what to read; by default the weights.
        num_classes: Replace the heads by fresh ones of so many outputs, as timm does; None: leave them.
        in_channels: Adapt the patch embedding to images of so many channels, as timm does; None: leave it.

    Raises:
        UserError: The file is missing, unreadable or damaged, or not of a model as the configuration says.
    """
    saved = read_weights(path, part)
    channels = _channels(saved.arrays, path)
    arrays = {name: array.astype(np.float32) if array.dtype.kind == "f" else array
              for name, array in from_timm(saved.arrays).items()}  # fmt: skip
    if num_classes is not None:
        arrays = _with_heads(arrays, num_classes)
    if saved.config is None:
        told: dict[str, object] = {**ORIGINS[kind_of(path)], **_model(arrays, channels, path, overrides)}
        config = parse("{}", str(path), {**told, **overrides})
    else:
        config = parse(saved.config, f"the configuration in {path}", {**_counted(arrays), **overrides})
    weights = Weights(arrays, config, saved.classes if num_classes is None else (), channels)
    shapes = shapes_of(weights.geometry)
    for kind, names in misfits(arrays, shapes).items():
        print("".join(f"{kind}: {name}\n" for name in names), end="")
    try:
        check_fit(arrays, shapes, path)
    except UserError as error:
        hint = "leave out overrides of sizes, which the file tells; --num_classes N makes fresh heads"
        raise UserError(f"{error}; {hint}") from error
    resolve(parse_tokens(config.model.tokens), weights.geometry)
    return weights if in_channels is None else _with_channels(weights, in_channels, path)


def write(path: Path, weights: Weights) -> None:
    """Write a checkpoint of ours (.ckpt), or a safetensors file that timm loads, or the authors' code.

    Raises:
        RunError: It cannot be written.
    """
    if path.suffix == ".safetensors":
        arrays = to_timm(weights.arrays, weights.geometry.cut_size)
        write_timm(path, arrays, {"config": dump(weights.config), "classes": "\n".join(weights.classes)})
        return
    from mindspore import Tensor

    tensors = {name: Tensor(array) for name, array in weights.arrays.items()}
    write_weights(path, tensors, weights.config, weights.classes)


def loaded_by(weights: Weights) -> str:
    """Return the Python that makes timm's model of these weights, or whose code has them where timm has none."""
    geometry = weights.geometry
    if geometry.predictors:
        return "the code of DynamicViT (raoyongming/DynamicViT), whose names these are: timm has no such model"
    if geometry.backbone == "lvvit":
        return "the code of LV-ViT (zihangJiang/TokenLabeling), whose names these are: timm has no such model"
    return timm_call(weights)


def timm_call(weights: Weights) -> str:
    """Return the Python that makes timm's model of these weights."""
    model, geometry = weights.config.model, weights.geometry
    sizes, own = sizes_of(model.name), dataclasses.asdict(model)
    size = model.name.split("_")[1]
    kind = "deit_{}_distilled_patch{}_224" if geometry.distilled else "vit_{}_patch{}_224"
    name = kind.format(TIMM_NAMES[size], sizes["patch_size"])
    options: dict[str, Any] = {"num_classes": geometry.num_classes}
    if model.image_size != 224:
        options["img_size"] = model.image_size
    for key in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio"):
        if own[key] is not None and own[key] != sizes[key]:
            options[key] = own[key]
    if weights.in_channels != 3:
        options["in_chans"] = weights.in_channels
    if model.pool == "avg":
        options.update(global_pool="avg", class_token=False, fc_norm=False)
    if model.act == "gelu_tanh":
        options["act_layer"] = "gelu_tanh"
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    return f'timm.create_model("{name}"{given})'


def _channels(arrays: Mapping[str, np.ndarray], path: Path) -> int:
    """Return the channels of the images; a kernel that is a matrix, as ours, is of 3."""
    kernel = arrays.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim not in (2, 4):
        raise UserError(f"checkpoint {path} is of no ViT: it has no patch_embed.proj.weight of 4 dimensions")
    first = arrays.get(STEM, kernel)
    if first is not kernel and first.ndim != 4:
        raise UserError(f"checkpoint {path} is of no LV-ViT: its {STEM} has {first.ndim} dimensions, not 4")
    return first.shape[1] if first.ndim == 4 else 3


def _model(arrays: Mapping[str, np.ndarray], channels: int, path: Path, overrides: Overrides) -> dict[str, object]:
    """Return the model's keys of the configuration, as its weights tell them, and how LV-ViT's images are cropped.

    Raises:
        UserError: A weight is missing that would tell, or nothing tells the number of attention heads.
    """
    if missing := lacking(arrays):
        raise UserError(
            f"checkpoint {path} is of no ViT with a head; missing, or of another form: {', '.join(missing)}"
        )
    dim, side, patch = len(arrays["patch_embed.proj.weight"]), count_patches(arrays), patch_side(arrays, channels)
    ratio = mlp_ratio(dim, len(arrays["blocks.0.mlp.fc1.weight"]))
    found = {"patch_size": patch, "embed_dim": dim, "depth": count_blocks(arrays), "mlp_ratio": ratio}
    nearest = _nearest(found, "dist_token" in arrays, "lvvit" if STEM in arrays else "vit")
    name = str(overrides.get("model.name", nearest))
    sizes = sizes_of(name)
    if dim == sizes["embed_dim"]:
        found["num_heads"] = sizes["num_heads"]
    elif dim % HEAD_CHANNELS == 0:
        found["num_heads"] = dim // HEAD_CHANNELS
    elif "model.num_heads" not in overrides:
        raise UserError(f"checkpoint {path}: nothing tells the number of attention heads; add model.num_heads=N")
    image_size = {"model.image_size": math.isqrt(max(side, 1)) * patch}
    pool = {"model.pool": "cls" if "cls_token" in arrays else "avg"}
    differing = {f"model.{key}": value for key, value in found.items() if value != sizes[key]}
    counted = _counted(arrays)
    crop = {"data.crop_pct": LVVIT_CROP[name]} if name in LVVIT_CROP and "model.predictors" not in counted else {}
    return {"model.name": name, **image_size, **pool, **counted, **differing, **crop}


def mlp_ratio(dim: int, hidden: int) -> float:
    """Return the ratio whose product with the width, cut to a whole number, is the MLP's hidden channels."""
    exact = hidden / dim
    return exact if int(dim * exact) == hidden else (hidden + 0.5) / dim


def _nearest(found: Mapping[str, object], distilled: bool, backbone: str) -> str:
    """Return the model of the registry with the most of these sizes, the width first."""

    def likeness(name: str) -> tuple[bool, int]:
        sizes = sizes_of(name)
        return sizes["embed_dim"] == found["embed_dim"], sum(sizes[key] == value for key, value in found.items())

    kinds = {name: (sizes_of(name)["distilled"], sizes_of(name)["backbone"]) for name in VARIANTS}
    return max((name for name, kind in kinds.items() if kind == (distilled, backbone)), key=likeness)


def _counted(arrays: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Return what of the model its weights alone tell: the number of classes, and of predictors where it has some."""
    classes = {"model.num_classes": len(arrays["head.weight"])} if "head.weight" in arrays else {}
    predictors = count_predictors(arrays)
    return {**classes, **({"model.predictors": predictors} if predictors else {})}


def _with_heads(arrays: Mapping[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    """Return weights with fresh heads: normal of 0.02, zero bias, as timm's `create_model(num_classes=N)` has them."""
    random = np.random.default_rng(0)
    positions = arrays.get("pos_embed", np.zeros(()))
    dim = positions.shape[-1] if positions.ndim else 1  # of no ViT, as is refused afterwards
    heads = {}
    for name in ("head", *["head_dist"] * ("dist_token" in arrays), *["aux_head"] * (STEM in arrays)):
        heads[f"{name}.weight"] = 0.02 * random.standard_normal((num_classes, dim), np.float32)
        heads[f"{name}.bias"] = np.zeros(num_classes, np.float32)
    return {**{name: array for name, array in arrays.items() if not name.startswith(HEADS)}, **heads}


def _with_channels(weights: Weights, channels: int, path: Path) -> Weights:
    if weights.in_channels not in (3, channels):
        raise UserError(f"checkpoint {path} is for images of {weights.in_channels} channels; only 3 can be adapted")
    name, size = (STEM, 7) if STEM in weights.arrays else ("patch_embed.proj.weight", weights.geometry.patch_size)
    kernel = weights.arrays[name]
    adapted = adapt_input_channels(kernel.reshape(len(kernel), -1, size, size), channels)
    shape = adapted.shape if kernel.ndim == 4 else (len(kernel), -1)
    arrays = {**weights.arrays, name: adapted.reshape(shape)}
    return dataclasses.replace(weights, arrays=arrays, in_channels=channels)

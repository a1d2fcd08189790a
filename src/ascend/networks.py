"""The networks and training steps whose graphs are looked at: ours, and MindCV's class of the same size."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from src.config import Config, ImageSize, sides
from src.data import label_maps
from src.errors import UserError
from src.schedules import Geometry

if TYPE_CHECKING:
    from mindspore import Tensor, nn

    from src.training.step import TrainStep


def zero_images(config: Config, batch_size: int) -> "Tensor":
    """Return a batch of black images, float32 [B, 3, H, W]."""
    from mindspore import Tensor

    return Tensor(np.zeros((batch_size, 3, *sides(config.model.image_size)), np.float32))


def training_step(config: Config, image_size: Optional[ImageSize] = None) -> "TrainStep":
    """Return a configuration's training step of one batch, written for Ascend; of an image size, if one is given."""
    return _make_step(replace(config, train=replace(config.train, accumulate=1)), image_size)


def training_cells(config: Config, batch_size: int) -> list[tuple["nn.Cell", tuple]]:
    """Return the cells whose graphs train a configuration, written for Ascend, each with its inputs."""
    step = _make_step(config)
    inputs = training_inputs(config, step, batch_size)
    return [(step.add, inputs), (step.update, ())] if config.train.accumulate > 1 else [(step, inputs)]


def _make_step(config: Config, image_size: Optional[ImageSize] = None) -> Any:
    from src.models import from_config
    from src.models.asked import asks_of
    from src.training.state import create_train_state, make_train_step

    def build() -> "nn.Cell":
        return from_config(config.model, config.train.amp_level, "ascend")

    state = create_train_state(config, build, [1e-4], asks_of(config, "ascend"))
    return make_train_step(state, config, config.model.tokens, image_size=image_size)


def training_inputs(config: Config, step: "TrainStep", batch_size: int) -> tuple:
    """Return inputs of our training step."""
    from mindspore import Tensor

    maps = map(Tensor, label_maps.blank(config, batch_size))
    return (*training_batch(config, batch_size), *maps, *step.sample(batch_size, 0))


def training_batch(config: Config, batch_size: int) -> tuple["Tensor", "Tensor"]:
    """Return black images and labels of a configuration's kind: int32 [B], or float32 [B, classes] where mixed."""
    from mindspore import Tensor

    mixed = config.data.mixup or config.data.cutmix
    classes = Geometry.from_config(config.model).num_classes
    labels = np.zeros((batch_size, classes), np.float32) if mixed else np.zeros(batch_size, np.int32)
    return zero_images(config, batch_size), Tensor(labels)


def mindcv_network(config: Config) -> "nn.Cell":
    """Return MindCV's VisionTransformer of a configuration's sizes and precision.

    Raises:
        UserError: MindCV's class has no such size.
    """
    from mindcv.models.vit import VisionTransformer
    from mindspore import amp

    sizes = Geometry.from_config(config.model)
    rows, columns = sizes.grid
    if rows != columns:
        raise UserError("MindCV's VisionTransformer takes square images alone; set model.image_size to one number")
    network = VisionTransformer(
        rows * sizes.patch_size, sizes.patch_size, embed_dim=sizes.embed_dim, depth=sizes.depth,
        num_heads=sizes.num_heads, mlp_ratio=sizes.mlp_dim / sizes.embed_dim, num_classes=sizes.num_classes,
    )  # fmt: skip
    amp.auto_mixed_precision(network, config.train.amp_level)
    return network


def mindcv_step(config: Config) -> "TrainStep":
    """Return a training step of MindCV's class with our loss, loss scale and clipping.

    The optimiser does not matter: bytes of weights do not grow with a batch.
    """
    from mindspore import nn

    from src.training.loss import Loss
    from src.training.objectives import Classification
    from src.training.optimizer import make_scaler
    from src.training.step import TrainStep

    network = mindcv_network(config)
    classes = Geometry.from_config(config.model).num_classes
    loss = Loss(classes, config.train.label_smoothing)
    optimizer = nn.Momentum(network.trainable_params(), 1e-4, 0.9)
    objective, clip = Classification(network, loss), config.train.clip_norm
    step = TrainStep(objective, optimizer, make_scaler(config), None, clip, checks_overflow=True)
    return step.set_train()

"""Learning rate, optimiser and loss scale, from MindCV and MindSpore."""

from collections.abc import Iterable
from typing import Union

import numpy as np
from mindcv.optim.optim_factory import group_with_matcher, init_group_params
from mindcv.scheduler import create_scheduler
from mindspore import Parameter, Tensor, amp, jit_class, nn, ops
from mindspore import dtype as mstype
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from src.config import Config, PredictorConfig
from src.models.ops import multiply
from src.weights.timm import PREDICTORS

BETA1, BETA2 = 0.9, 0.999


def peak_lr(config: Config, processes: int = 1) -> float:
    """Return the highest learning rate, scaled linearly with the images of an update (arXiv 1706.02677)."""
    batch = config.data.batch_size * config.train.accumulate * processes
    return config.optimizer.lr * batch / (config.optimizer.lr_batch_size or batch)


def warmup_epochs(config: Config) -> int:
    """Return the epochs of the learning rate's warm-up: at least one is left for the cosine."""
    return min(config.optimizer.warmup_epochs, config.train.epochs - 1)


def learning_rates(config: Config, steps_per_epoch: int, processes: int = 1) -> list[float]:
    """Return the learning rate of every step of the run: linear warm-up, then a cosine to `min_lr`."""
    epochs, warmup, peak = config.train.epochs, warmup_epochs(config), peak_lr(config, processes)
    return create_scheduler(
        steps_per_epoch,
        "cosine_decay",
        lr=peak,
        min_lr=min(config.optimizer.min_lr, peak),
        warmup_epochs=warmup,
        warmup_factor=0.01,
        decay_epochs=epochs - warmup,
        num_epochs=epochs,
    )


def make_optimizer(config: Config, network: nn.Cell, rates: list[float]) -> nn.Optimizer:
    """Make the optimiser of a network's parameters; biases, norms, [CLS] and positions do not decay.

    AdamW (arXiv 1711.05101) is MindSpore's fused AdamWeightDecay, one operator a parameter where MindCV's AdamW is
    twelve. It lacks Adam's bias correction, a factor known beforehand for every step; so the factor goes into the
    learning rate, and its inverse into the weight decay. What differs from the paper is epsilon: divided by
    sqrt(1 - beta2^t).
    """
    options = config.optimizer
    decay: Union[float, PerStep] = options.weight_decay
    if options.name == "adamw":
        steps = np.arange(1, len(rates) + 1, dtype=np.float64)
        correction = np.sqrt(1 - BETA2**steps) / (1 - BETA1**steps)
        rates = (np.array(rates) * correction).tolist()
        decay = PerStep(decay / correction) if decay else 0.0
    groups = init_group_params(network.trainable_params(), decay, "norm_and_bias", network.no_weight_decay())
    if options.layer_decay is not None or config.predictor != PredictorConfig():
        groups = _by_shares(network, groups, rates, config)
    if options.name == "adamw":
        return nn.AdamWeightDecay(groups, rates, BETA1, BETA2, eps=1e-8)
    return nn.Momentum(groups, rates, options.momentum)


def freeze(network: nn.Cell, blocks: int) -> None:
    """Have the embedding and the first blocks of a network not trained."""
    layers = _layers(network, network.get_parameters())
    for weight in network.get_parameters():
        weight.requires_grad = weight.requires_grad and layers[weight.name] > blocks


def _layers(network: nn.Cell, weights: Iterable[Parameter]) -> dict[str, int]:
    """Return the layer of each weight by its name: 0 the first of them, the last one norm and head."""
    return group_with_matcher(weights, network.group_matcher(), reverse=True)


def _by_shares(network: nn.Cell, groups: list[dict], rates: list[float], config: Config) -> list[dict]:
    """Divide groups of parameters by their shares of the learning rate.

    Each layer has its own (arXiv 2106.08254); times it, all weights but the predictors' have another, and none in the
    first epochs (arXiv 2106.02034): what is not moved by the gradient does not decay either.
    """
    *groups, order = groups
    layers, options = _layers(network, order["order_params"]), config.predictor
    waiting = np.array(rates)
    waiting[: options.frozen_epochs * (len(rates) // config.train.epochs)] = 0
    predictors, others = PerStep(np.array(rates)), PerStep(waiting)
    layer_decay, last = config.optimizer.layer_decay or 1.0, max(layers.values())

    def rate_of(weight: Parameter) -> tuple[PerStep, float]:
        share = layer_decay ** (last - layers[weight.name])
        return (predictors, share) if weight.name.startswith(PREDICTORS) else (others, share * options.backbone_lr)

    divided = []
    for group in groups:
        by_rate: dict[tuple[PerStep, float], list[Parameter]] = {}
        for weight in group["params"]:
            by_rate.setdefault(rate_of(weight), []).append(weight)
        divided += [
            {"params": weights, "lr": LayerRate(*rate), "weight_decay": group["weight_decay"]}
            for rate, weights in by_rate.items()
        ]
    return [*divided, order]


class PerStep(nn.Cell):
    """Look up a value for each step: step int32 [1] → float32 [1]."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = Tensor(values, mstype.float32)
        self.last = len(values) - 1

    def construct(self, step: Tensor) -> Tensor:
        return ops.gather(self.values, ops.minimum(step, self.last), 0)


class LayerRate(LearningRateSchedule):
    """A layer's share of the learning rate, of a table that all layers have in common."""

    def __init__(self, table: PerStep, share: float) -> None:
        super().__init__()
        self.table = table
        self.share = share

    def construct(self, global_step: Tensor) -> Tensor:
        return multiply(self.table(global_step), self.share)


@jit_class
class DynamicLossScaler(amp.DynamicLossScaler):
    """MindSpore's, with an `adjust` of operators that Ascend 910A has a route for (not EqScalar, Divs, Remainder)."""

    def adjust(self, grads_finite: Tensor) -> bool:
        """Double the scale after `scale_window` steps without overflow, halve it at each, to 1 at least."""
        counter = ops.select(grads_finite, self.counter + 1, ops.zeros_like(self.counter))
        full = ops.greater_equal(counter, Tensor(self.scale_window, mstype.int32))
        grown = multiply(self.scale_value, self.scale_factor)
        shrunk = ops.maximum(multiply(self.scale_value, 1 / self.scale_factor), ops.ones_like(self.scale_value))
        scale = ops.select(grads_finite, ops.select(full, grown, self.scale_value), shrunk)
        ops.assign(self.scale_value, scale)
        ops.assign(self.counter, ops.select(full, ops.zeros_like(counter), counter))
        return True


def make_scaler(config: Config) -> amp.LossScaler:
    """Make the loss scale, fixed or dynamic."""
    if config.train.loss_scale_type == "dynamic":
        return DynamicLossScaler(config.train.loss_scale, scale_factor=2, scale_window=2000)
    return amp.StaticLossScaler(config.train.loss_scale)

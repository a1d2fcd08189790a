"""Learning rate, optimiser and loss scale, from MindCV and MindSpore."""

import numpy as np
from mindcv.optim import create_optimizer
from mindcv.optim.optim_factory import init_group_params
from mindcv.scheduler import create_scheduler
from mindspore import Tensor, amp, nn, ops
from mindspore import dtype as mstype

from src.config import Config, peak_lr

BETA1, BETA2 = 0.9, 0.999


def learning_rates(config: Config, steps_per_epoch: int) -> list[float]:
    """The learning rate of every step of the run: linear warm-up, then a cosine to `min_lr`."""
    epochs, peak = config.train.epochs, peak_lr(config)
    warmup = min(config.optimizer.warmup_epochs, epochs - 1)
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
    """The optimiser over a network's parameters; biases, norms, [CLS] and positions do not decay.

    AdamW (arXiv 1711.05101) is MindSpore's fused AdamWeightDecay, one operator a parameter where MindCV's AdamW is
    twelve. It lacks Adam's bias correction, a factor known beforehand for every step; so the factor goes into the
    learning rate, and its inverse into the weight decay. What differs from the paper is epsilon: divided by
    sqrt(1 - beta2^t).
    """
    decay = config.optimizer.weight_decay
    if config.optimizer.name == "momentum":
        return create_optimizer(
            network,
            "momentum",
            lr=rates,
            weight_decay=decay,
            momentum=config.optimizer.momentum,
            weight_decay_filter="norm_and_bias",
        )
    steps = np.arange(1, len(rates) + 1, dtype=np.float64)
    correction = np.sqrt(1 - BETA2**steps) / (1 - BETA1**steps)
    schedule = PerStep(decay / correction) if decay else 0.0
    groups = init_group_params(network.trainable_params(), schedule, "norm_and_bias", network.no_weight_decay())
    return nn.AdamWeightDecay(groups, (np.array(rates) * correction).tolist(), BETA1, BETA2, eps=1e-8)


class PerStep(nn.Cell):
    """A value for each step: step int32 [1] → float32 [1]."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = Tensor(values, mstype.float32)
        self.last = len(values) - 1

    def construct(self, step: Tensor) -> Tensor:
        return ops.gather(self.values, ops.minimum(step, self.last), 0)


def make_scaler(config: Config) -> amp.LossScaler:
    """The loss scale, fixed or dynamic (doubled after 2,000 steps without overflow, halved at each)."""
    if config.train.loss_scale_type == "dynamic":
        return amp.DynamicLossScaler(config.train.loss_scale, scale_factor=2, scale_window=2000)
    return amp.StaticLossScaler(config.train.loss_scale)

"""One training step as one graph: forward, gradient, clipping, optimiser and average of the weights."""

from typing import Optional

import mindspore as ms
from mindspore import Tensor, amp, nn, ops
from mindspore.ops.operations.math_ops import NPUClearFloatStatusV2

from src.models.ops import multiply
from src.training.ema import Ema
from src.weights.frozen import FROZEN

STATISTICS = ("moving_mean", "moving_variance")  # of BatchNorm, which no gradient changes


class TrainStep(nn.Cell):
    """Update the weights: (images, labels, *others) → (mean loss, whether all gradients were finite).

    Args:
        objective: (labels, images, *others) → mean loss; see `src.training.objectives`.
        optimizer, scaler, ema: State that outlives this step: the steps of all phases share them.
        clip_norm: Bound on the global norm of the gradients; None for no bound.
        checks_overflow: Leave weights as they are when a gradient of any process overflowed, and adjust the loss scale.
        processes: How many train together: each has its part of the batch, and gradients are averaged over them.
    """

    def __init__(
        self,
        objective: nn.Cell,
        optimizer: nn.Optimizer,
        scaler: amp.LossScaler,
        ema: Optional[Ema],
        clip_norm: Optional[float],
        checks_overflow: bool,
        processes: int = 1,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.objective = objective
        self.optimizer = optimizer
        self.scaler = scaler
        self.ema = ema
        self.clip_norm = clip_norm
        self.checks_overflow = checks_overflow
        self.average = nn.DistributedGradReducer(optimizer.parameters) if processes > 1 else nn.Identity()
        self.sum = ops.AllReduce() if processes > 1 else nn.Identity()  # CPU has no minimum
        self.processes = processes
        self.enough = processes - 0.5
        named = [weight for weight in objective.get_parameters() if not weight.name.startswith(FROZEN)]
        statistics = [weight for weight in named if weight.name.endswith(STATISTICS)]
        self.statistics = ms.ParameterTuple(statistics if processes > 1 else [])
        self.all_true = ops.ReduceAll()
        self.clear_overflow = NPUClearFloatStatusV2()
        self.on_ascend = ms.get_context("device_target") == "Ascend"
        self.gradient = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)

    def scaled_loss(self, labels: Tensor, *inputs: object) -> Tensor:
        return self.scaler.scale(self.objective(labels, *inputs))

    def construct(self, images: Tensor, labels: Tensor, *others: object) -> tuple[Tensor, Tensor]:
        return self.apply(*self.backward(images, labels, *others))

    def sample(self, images: int, *seed: int) -> tuple:
        """Draw the random inputs of a batch."""
        return self.objective.sample(images, *seed)

    def backward(self, images: Tensor, labels: Tensor, *others: object) -> tuple[Tensor, tuple, Tensor]:
        """Return the loss of a batch, its gradients, and whether all of these are finite."""
        if self.checks_overflow and self.on_ascend:  # its status also tells of an evaluation or an average before
            images = ops.depend(images, self.clear_overflow(Tensor([0] * 8, ms.int32)))
        loss, gradients = self.gradient(labels, images, *others)
        loss = self.scaler.unscale(loss)
        gradients = self.scaler.unscale(gradients)
        return loss, gradients, self.all_finite(gradients) if self.checks_overflow else ops.isfinite(loss)

    def apply(self, loss: Tensor, gradients: tuple, finite: Tensor) -> tuple[Tensor, Tensor]:
        """Update the weights by the gradients of all processes; return the loss, and whether all are finite."""
        if self.checks_overflow:
            finite = self.sum(ops.cast(finite, ms.float32)) > self.enough
            self.scaler.adjust(finite)
            gradients = self.average(gradients)
            if finite:
                loss = ops.depend(loss, self.update(gradients))
        else:
            loss = ops.depend(loss, self.update(self.average(gradients)))
        return self.share_statistics(loss), finite

    def share_statistics(self, loss: Tensor) -> Tensor:
        """Make BatchNorm's moving averages those of all processes, which evaluate and resume with the same."""
        for own in self.statistics:
            loss = ops.depend(loss, ops.assign(own, multiply(self.sum(ops.depend(own, loss)), 1 / self.processes)))
        return loss

    def all_finite(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Tell whether all gradients are finite: by the hardware's status on Ascend 910A, elsewhere by their values."""
        if self.on_ascend:
            return amp.all_finite(gradients)
        flags: tuple[
            Tensor, ...
        ] = ()  # stacked, not added: the sum of so many flags would be one fused kernel that compiles for minutes
        for gradient in gradients:
            flags += (ops.cast(self.all_true(ops.isfinite(gradient)), ms.float32),)
        return ops.reduce_min(ops.stack(flags)) > 0.5

    def update(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Clip the gradients, and update weights and average."""
        if self.clip_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        done = self.optimizer(gradients)
        if self.ema is not None:
            done = ops.depend(self.ema(), done)
        return done

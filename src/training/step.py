"""One training step as one graph: forward, gradient, clipping, optimiser and average of the weights."""

from typing import Optional

import mindspore as ms
from mindspore import Parameter, Tensor, amp, nn, ops

from src.models.layers import multiply


class Ema(nn.Cell):
    """Exponential moving average of a network's weights, kept as the parameters of a second network.

    The decay starts at 0 and rises to `decay`, as decay·(1 - exp(-t/2000)) over t steps (as MindCV's trainer).

    Args:
        network: The network that is trained.
        average: A network of the same build; its parameters become the averages.
    """

    def __init__(self, network: nn.Cell, average: nn.Cell, decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.decay = decay
        self.average = average
        self.weights = ms.ParameterTuple(network.get_parameters())
        average.update_parameters_name("ema.")
        self.averages = ms.ParameterTuple(average.get_parameters())
        for copy, weight in zip(self.averages, self.weights):
            copy.set_data(weight.value().copy())
            copy.requires_grad = False
        self.steps = Parameter(Tensor(0.0, ms.float32), name="ema_steps", requires_grad=False)

    def construct(self) -> Tensor:
        step = self.steps + 1.0
        ops.assign(self.steps, step)
        kept = multiply(1.0 - ops.exp(multiply(step, -1 / 2000)), self.decay)
        for copy, weight in zip(self.averages, self.weights):
            ops.assign(copy, weight + (copy - weight) * kept)
        return step


class Loss(nn.Cell):
    """Cross-entropy with label smoothing of logits [B, classes] and labels, int32 [B] or float32 [B, classes].

    MindCV's composes it from operators that Ascend 910A has no route for (SumExt, Divs); this is its one kernel.
    """

    def __init__(self, num_classes: int, label_smoothing: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.sure = 1 - label_smoothing
        self.unsure = label_smoothing / num_classes
        self.entropy = nn.SoftmaxCrossEntropyWithLogits()

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim == 1:
            labels = ops.one_hot(labels, self.num_classes, Tensor(1.0, ms.float32), Tensor(0.0, ms.float32))
        return ops.reduce_mean(self.entropy(ops.cast(logits, ms.float32), multiply(labels, self.sure) + self.unsure))


class TrainStep(nn.Cell):
    """(images, labels[, draws]) → (mean loss of the batch, whether all gradients were finite), updating the weights.

    Args:
        network: images[, draws] → logits.
        optimizer, scaler, ema: State that outlives this step: the steps of all phases share them.
        clip_norm: Bound on the global norm of the gradients; None for no bound.
        checks_overflow: Leave weights as they are when a gradient of any process overflowed, and adjust the loss scale.
        processes: How many train together: each has its part of the batch, and gradients are averaged over them.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: Loss,
        optimizer: nn.Optimizer,
        scaler: amp.LossScaler,
        ema: Optional[Ema],
        clip_norm: Optional[float],
        checks_overflow: bool,
        processes: int = 1,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.scaler = scaler
        self.ema = ema
        self.clip_norm = clip_norm
        self.checks_overflow = checks_overflow
        self.average = nn.DistributedGradReducer(optimizer.parameters) if processes > 1 else nn.Identity()
        self.least = ops.AllReduce(ops.ReduceOp.MIN) if processes > 1 else nn.Identity()
        self.all_true = ops.ReduceAll()
        self.on_ascend = ms.get_context("device_target") == "Ascend"
        self.gradient = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)

    def scaled_loss(self, labels: Tensor, *inputs: Tensor) -> Tensor:
        return self.scaler.scale(self.loss(self.network(*inputs), labels))

    def construct(self, images: Tensor, labels: Tensor, *draws: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradient(labels, images, *draws)
        loss = self.scaler.unscale(loss)
        gradients = self.scaler.unscale(gradients)
        finite = ops.isfinite(loss)
        if self.checks_overflow:
            finite = self.least(ops.cast(self.all_finite(gradients), ms.float32)) > 0.5
            self.scaler.adjust(finite)
            gradients = self.average(gradients)
            if finite:
                loss = ops.depend(loss, self.update(gradients))
        else:
            loss = ops.depend(loss, self.update(self.average(gradients)))
        return loss, finite

    def all_finite(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Whether all gradients are finite: on Ascend 910A the hardware's status, elsewhere the values tell."""
        if self.on_ascend:
            return amp.all_finite(gradients)
        flags = ()  # stacked, not added: the sum of so many flags would be one fused kernel that compiles for minutes
        for gradient in gradients:
            flags += (ops.cast(self.all_true(ops.isfinite(gradient)), ms.float32),)
        return ops.reduce_min(ops.stack(flags)) > 0.5

    def update(self, gradients: tuple[Tensor, ...]) -> Tensor:
        if self.clip_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        done = self.optimizer(gradients)
        if self.ema is not None:
            done = ops.depend(self.ema(), done)
        return done

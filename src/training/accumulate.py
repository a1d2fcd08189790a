"""Gradients of several batches, added up for one update: a large batch on few devices."""

from typing import Optional

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from src.models.ops import multiply
from src.training.step import TrainStep


class AddGradients(nn.Cell):
    """Add a batch's share of the mean loss and its gradients to the sums: (images, labels, *others) → loss.

    Args:
        step: Whose network and loss it is, and which makes the update.
        batches: How many batches an update has.
    """

    def __init__(self, step: TrainStep, batches: int) -> None:
        super().__init__(auto_prefix=False)
        self.step = step
        self.share = 1 / batches
        self.gradients = step.optimizer.parameters.clone("accumulated", "zeros")
        self.loss = Parameter(Tensor(0.0, ms.float32), name="accumulated_loss", requires_grad=False)
        self.finite = Parameter(Tensor(1.0, ms.float32), name="accumulated_finite", requires_grad=False)

    def construct(self, images: Tensor, labels: Tensor, *others: object) -> Tensor:
        loss, gradients, finite = self.step.backward(images, labels, *others)
        for total, gradient in zip(self.gradients, gradients):
            ops.assign(total, total + multiply(gradient, self.share))
        ops.assign(self.loss, self.loss + multiply(loss, self.share))
        ops.assign(self.finite, ops.minimum(self.finite, ops.cast(finite, ms.float32)))
        return loss


class Update(nn.Cell):
    """Update the weights by the sums, and begin new ones: () → (mean loss, whether all gradients were finite)."""

    def __init__(self, sums: AddGradients) -> None:
        super().__init__(auto_prefix=False)
        self.sums = sums

    def construct(self) -> tuple[Tensor, Tensor]:
        gradients: tuple = ()
        for total in self.sums.gradients:
            gradients += (total + 0.0,)  # a copy, for the sums begin anew below
        loss, finite = self.sums.step.apply(self.sums.loss + 0.0, gradients, self.sums.finite > 0.5)
        for total in self.sums.gradients:
            ops.assign(total, ops.depend(ops.zeros_like(total), loss))
        ops.assign(self.sums.loss, ops.depend(ops.zeros_like(self.sums.loss), loss))
        ops.assign(self.sums.finite, ops.depend(ops.ones_like(self.sums.finite), loss))
        return loss, finite


class Accumulation:
    """A training step of several batches, called with one after the other: (images, labels, *others) → None.

    With the last batch of an update it returns what `TrainStep` does, of all of them. Checkpoints are written after
    updates alone, when the sums are empty.
    """

    def __init__(self, step: TrainStep, batches: int) -> None:
        self.sample = step.sample
        self.batches, self.added = batches, 0
        self.add = AddGradients(step, batches)
        self.update = Update(self.add)

    def __call__(self, *inputs: object) -> Optional[tuple[Tensor, Tensor]]:
        self.add(*inputs)
        self.added = (self.added + 1) % self.batches
        return None if self.added else self.update()

    @property
    def compile_cache(self) -> set:
        return self.add.compile_cache

    def compile(self, *inputs: object) -> None:
        """Compile both graphs."""
        self.add.compile(*inputs)
        self.update.compile()

    def set_train(self) -> "Accumulation":
        """Set the mode of the network's parts, which an evaluation shares."""
        self.add.set_train()
        return self

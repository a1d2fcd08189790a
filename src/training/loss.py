"""The loss."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.models.ops import multiply


class Loss(nn.Cell):
    """Cross-entropy with label smoothing: logits [B, classes] and labels, int32 [B] or float32 [B, classes] → [].

    MindCV's is composed of operators that Ascend 910A has no route for (SumExt, Divs); this is its one kernel.
    """

    def __init__(self, num_classes: int, label_smoothing: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.on_value = 1 - label_smoothing
        self.off_value = label_smoothing / num_classes
        self.entropy = nn.SoftmaxCrossEntropyWithLogits()

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.reduce_mean(self.entropy(ops.cast(logits, ms.float32), self.targets(labels)))

    def targets(self, labels: Tensor) -> Tensor:
        """Return smoothed labels, float32 [B, classes]."""
        if labels.ndim == 1:
            labels = ops.one_hot(labels, self.num_classes, Tensor(1.0, ms.float32), Tensor(0.0, ms.float32))
        return multiply(labels, self.on_value) + self.off_value

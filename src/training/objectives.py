"""What a training makes small: (labels, images, *others) → the mean loss of a batch.

The others are what the data gives beside labels, and then what the objective's `sample` draws.
"""

from mindspore import Tensor, nn

from src.training.loss import Loss


class Classification(nn.Cell):
    """The cross-entropy of a network's logits."""

    def __init__(self, network: nn.Cell, loss: Loss) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss

    def construct(self, labels: Tensor, images: Tensor, *random_inputs: object) -> Tensor:
        return self.loss(self.network(images, *random_inputs), labels)

    def sample(self, images: int, *seed: int) -> tuple:
        """Draw the network's random inputs."""
        return self.network.sample(images, *seed)

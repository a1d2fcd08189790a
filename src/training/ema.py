"""The exponential moving average of a network's weights."""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from src.models.ops import multiply
from src.weights.files import AVERAGE, AVERAGE_STEPS


class Ema(nn.Cell):
    """Keep the exponential moving average of a network's weights as the parameters of a second network.

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
        average.update_parameters_name(AVERAGE)
        self.averages = ms.ParameterTuple(average.get_parameters())
        for copy, weight in zip(self.averages, self.weights):
            copy.set_data(weight.value().copy())
            copy.requires_grad = False
        self.steps = Parameter(Tensor(0.0, ms.float32), name=AVERAGE_STEPS, requires_grad=False)

    def construct(self) -> Tensor:
        step = self.steps + 1.0
        ops.assign(self.steps, step)
        kept = multiply(1.0 - ops.exp(multiply(step, -1 / 2000)), self.decay)
        for copy, weight in zip(self.averages, self.weights):
            ops.assign(copy, weight + (copy - weight) * kept)
        return step

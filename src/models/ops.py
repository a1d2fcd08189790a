"""The operators that the graphs are written with where more than one would do, chosen for the device."""

import math

from mindspore import Tensor, nn, ops

ACTIVATIONS = ("gelu_tanh", "gelu_erf")
multiply = ops.Mul()  # tensor * number would become Muls, which Ascend's graph engine lacks before MindSpore 2.7
less = ops.Less()  # of a number too: ops.less would make it LessScalar, which Ascend lacks
sum_kept = ops.ReduceSum(keep_dims=True)  # Tensor.sum would become SumExt, which Ascend lacks


class Gelu(nn.Cell):
    """GELU by the tanh formula (what Ascend's Gelu operator computes) or exactly, by erf (what timm weights expect).

    Written as elementary products: on CPU the library's own is 4 to 10 times slower.
    """

    def __init__(self, act: str) -> None:
        super().__init__()
        self.tanh = act == "gelu_tanh"
        self.linear = math.sqrt(2 / math.pi)
        self.cubic = 0.044715 * self.linear

    def construct(self, x: Tensor) -> Tensor:
        half = multiply(x, 0.5)
        if self.tanh:
            return half * (1.0 + ops.tanh(x * (self.linear + multiply(x * x, self.cubic))))
        return half * (1.0 + ops.erf(multiply(x, math.sqrt(0.5))))

"""The operators that the graphs are written with where more than one would do, chosen for the device.

The mathematics is the same for both targets. On CPU a formula of elementary products is what fused kernels are made
of. Ascend's graph engine runs every operator as a kernel of its own, which reads and writes all of it in memory, so
there one operator takes the place of many; docs/ascend.md counts the bytes.
"""

import math
from typing import Optional

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from src.config.variants import BATCH_NORM_EPSILON, NORM_EPSILON
from src.errors import UserError

ACTIVATIONS = ("gelu_tanh", "gelu_erf")
TARGETS = ("cpu", "ascend")
multiply = ops.Mul()  # tensor * number would become Muls, which Ascend's graph engine lacks before MindSpore 2.7
matmul = ops.MatMul()  # ops.matmul may become MatMulExt, which Ascend lacks
less = ops.Less()  # of a number too: ops.less would make it LessScalar, which Ascend lacks
sum_kept = ops.ReduceSum(keep_dims=True)  # Tensor.sum would become SumExt, which Ascend lacks


def choose_target(target: Optional[str]) -> str:
    """Return the target that a network is written for: by default the device that is set.

    Raises:
        UserError: The target is unknown.
    """
    if target is None:
        return "ascend" if ms.get_context("device_target") == "Ascend" else "cpu"
    if target not in TARGETS:
        raise UserError(f"target {target!r} is unknown; choose one of {', '.join(TARGETS)}")
    return target


def gelu(act: str, target: str) -> nn.Cell:
    """Return GELU by the tanh formula or exactly, by erf (what timm weights expect).

    Ascend's Gelu operator computes the tanh formula; for erf it has no operator but Erf.

    Raises:
        UserError: The function is unknown.
    """
    if act not in ACTIVATIONS:
        raise UserError(f"model.act {act!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return OneOperatorGelu() if target == "ascend" and act == "gelu_tanh" else Gelu(act)


def layer_norm(dim: int, target: str, epsilon: float = NORM_EPSILON["vit"]) -> nn.Cell:
    """Return a LayerNorm over the last dimension, with parameters `gamma` and `beta`."""
    return OwnTypeLayerNorm(dim, epsilon) if target == "ascend" else nn.LayerNorm((dim,), epsilon=epsilon)


def batch_norm(channels: int, target: str) -> nn.Cell:
    """Return a BatchNorm over [B, C, H, W], with `gamma`, `beta`, `moving_mean` and `moving_variance`.

    The moving averages keep 0.9 of their value in each step of training, as PyTorch's do.
    """
    return OwnTypeBatchNorm(channels) if target == "ascend" else nn.BatchNorm2d(channels)


def hold_statistics(network: nn.Cell) -> None:
    """Have a network's BatchNorms normalise by their moving averages, and leave these as they are, in training too."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.use_batch_statistics = False
        elif isinstance(cell, OwnTypeBatchNorm):
            cell.learn = cell.apply_norm


def mix_reversed(x: Tensor, share: Tensor) -> Tensor:
    """Mix a batch with itself reversed, which has the share: the partner of its first entry is its last."""
    return x * (1.0 - share) + ops.ReverseV2([0])(x) * share


class Gelu(nn.Cell):
    """GELU in elementary products, of which fused kernels for CPU are made: the library's own is 4 to 10 times slower.

    A quotient of polynomials in place of tanh was tried too: fused, it took 3 times as long on an AMD EPYC.
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


class OneOperatorGelu(nn.Cell):
    """GELU by the tanh formula as one operator, and its gradient as another.

    In float16 the formula's square would overflow beyond 256; the operator computes in float32 inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gelu = ops.GeLU()

    def construct(self, x: Tensor) -> Tensor:
        return self.gelu(x)


class OwnTypeLayerNorm(nn.Cell):
    """LayerNorm in the type of its input: Ascend's kernel takes float16 and computes in float32 inside.

    MindSpore's mixed precision O2 would surround its own `nn.LayerNorm` with casts to float32 and back.
    """

    def __init__(self, dim: int, epsilon: float) -> None:
        super().__init__()
        self.gamma = Parameter(ops.ones((dim,), ms.float32), name="gamma")
        self.beta = Parameter(ops.zeros((dim,), ms.float32), name="beta")
        self.norm = ops.LayerNorm(-1, -1, epsilon)

    def construct(self, x: Tensor) -> Tensor:
        out, _, _ = self.norm(x, ops.cast(self.gamma, x.dtype), ops.cast(self.beta, x.dtype))
        return out


class OwnTypeBatchNorm(nn.Cell):
    """BatchNorm in the type of its input, for Ascend, as `OwnTypeLayerNorm`: its kernel computes in float32 inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.moving_mean = Parameter(ops.zeros((channels,), ms.float32), name="moving_mean", requires_grad=False)
        self.moving_variance = Parameter(ops.ones((channels,), ms.float32), name="moving_variance", requires_grad=False)
        self.gamma = Parameter(ops.ones((channels,), ms.float32), name="gamma")
        self.beta = Parameter(ops.zeros((channels,), ms.float32), name="beta")
        self.learn = ops.BatchNorm(is_training=True, epsilon=BATCH_NORM_EPSILON, momentum=0.1)
        self.apply_norm = ops.BatchNorm(is_training=False, epsilon=BATCH_NORM_EPSILON)

    def construct(self, x: Tensor) -> Tensor:
        norm = self.learn if self.training else self.apply_norm
        return norm(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]

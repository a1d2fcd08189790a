"""Convolutions of the kernels that each device has."""

from math import sqrt

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeUniform, initializer


def convolution(in_channels: int, out_channels: int, size: int, stride: int, target: str) -> nn.Cell:
    """Make a convolution without bias of an odd size that pads to keep height and width, divided by the stride 1 or 2.

    Its `weight` is [out, in, size, size], initialised as PyTorch's.
    """
    initial = HeUniform(sqrt(5))
    if target == "ascend":
        return nn.Conv2d(
            in_channels, out_channels, size, stride, pad_mode="pad", padding=size // 2, weight_init=initial
        )
    weight = Parameter(initializer(initial, (out_channels, in_channels, size, size)), name="weight")
    return MatMulConvolution(weight, stride)


class MatMulConvolution(nn.Cell):
    """A convolution as the product of all its shifted inputs with the weights: [B, I, H, W] → [B, O, H/s, W/s].

    For CPU, where MindSpore's Conv2D takes some 20 times as long. With stride 2, squares of 2x2 pixels become one of
    four times the channels first.
    """

    def __init__(self, weight: Parameter, stride: int) -> None:
        super().__init__()
        self.weight = weight
        self.stride = stride
        self.out_channels, self.in_channels, size, _ = weight.shape
        self.squares = self.in_channels * stride**2  # channels of a square
        self.front = stride * -(-(size // 2) // stride) - size // 2  # so many zeros before the weights fill the squares
        self.reach = -(-size // stride)
        before = -(-(size // 2) // stride)
        pad = (before, self.reach - 1 - before)
        self.pad_weight = ops.Pad(((0, 0), (0, 0), *2 * [(self.front, stride * self.reach - size - self.front)]))
        self.pad = ops.Pad(((0, 0), pad, pad, (0, 0)))
        self.product = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows, columns, s = height // self.stride, width // self.stride, self.stride
        x = ops.reshape(x, (-1, self.in_channels, rows, s, columns, s))
        x = ops.reshape(ops.transpose(x, (0, 2, 4, 1, 3, 5)), (-1, rows, columns, self.squares))
        x = self.pad(x)
        shifted: tuple = ()
        for i in range(self.reach):
            for j in range(self.reach):
                shifted += (ops.slice(x, (0, i, j, 0), (batch, rows, columns, self.squares)),)
        x = ops.reshape(ops.concat(shifted, 3), (-1, self.reach * self.reach * self.squares))
        x = self.product(x, ops.cast(self.matrix(), x.dtype))
        return ops.transpose(ops.reshape(x, (-1, rows, columns, self.out_channels)), (0, 3, 1, 2))

    def matrix(self) -> Tensor:
        """Return the weights as a matrix [O, reach·reach·I·s·s], in the order of the shifted inputs' channels."""
        weight = self.pad_weight(self.weight)
        shape = (self.out_channels, self.in_channels, self.reach, self.stride, self.reach, self.stride)
        weight = ops.transpose(ops.reshape(weight, shape), (0, 2, 4, 1, 3, 5))
        return ops.reshape(weight, (self.out_channels, -1))

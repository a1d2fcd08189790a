"""Several devices, one process each: who this one is among them, and sums over all of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, communication, nn, ops

from src.errors import UserError

LAUNCH = "msrun --worker_num=2 --local_worker_num=2 --join=True train.py --distribute --config FILE"


@dataclass(frozen=True)
class Group:
    """The processes of a run, of which this is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[int]) -> list[int]:
        """Whole numbers below 2^31, added over the processes; every one of them must call it."""
        if self.size == 1:
            return list(values)
        return [int(value) for value in _Sum()(Tensor(list(values), ms.int32)).asnumpy()]

    def mean(self, value: float) -> float:
        """The mean over the processes; every one of them must call it."""
        if self.size == 1:
            return value
        return float(_Sum()(Tensor([value], ms.float32)).asnumpy()[0]) / self.size


ALONE = Group()


class _Sum(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.reduce = ops.AllReduce()

    def construct(self, values: Tensor) -> Tensor:
        return self.reduce(values)


def join() -> Group:
    """Join the processes that msrun has started, for data parallel; before any tensor is made.

    Raises:
        UserError: This process was not started by msrun.
    """
    if "MS_ROLE" not in os.environ:
        raise UserError(f"--distribute needs MindSpore's launcher; start with: {LAUNCH}")
    communication.init()
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True)
    return Group(communication.get_rank(), communication.get_group_size())

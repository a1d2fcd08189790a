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

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value added over the processes, in float32: exact for whole numbers whose sum is below 2^24.

        Every process must call it.
        """
        if self.size == 1:
            return list(values)
        return _Sum()(Tensor(list(values), ms.float32)).asnumpy().tolist()


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

"""The processes of a data-parallel run, one for each device."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from src.errors import UserError

LAUNCH = "msrun --worker_num=2 --local_worker_num=2 --join=True train.py --distribute --config FILE"


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, of which this is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add each value over the processes, in float32: exact for whole numbers whose sum is below 2^24.

        Every process must call it.
        """
        if self.size == 1:
            return list(values)
        import mindspore as ms
        from mindspore import Tensor, ops

        return ops.AllReduce()(Tensor(list(values), ms.float32)).asnumpy().tolist()

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.sum((0.0,))


SINGLE_PROCESS = ProcessGroup()


def check_launched() -> None:
    """Refuse --distribute in a process that msrun did not start.

    Raises:
        UserError: msrun did not start it.
    """
    if "MS_ROLE" not in os.environ:
        raise UserError(f"--distribute needs MindSpore's launcher; start with: {LAUNCH}")


def init_processes() -> ProcessGroup:
    """Join the processes that msrun started, for data parallel training; before any tensor is made.

    Raises:
        UserError: msrun did not start this process.
    """
    check_launched()
    import mindspore as ms
    from mindspore import communication

    communication.init()
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True)
    return ProcessGroup(communication.get_rank(), communication.get_group_size())

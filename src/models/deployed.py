"""The network as an exported file holds it."""

from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.models.vit import SkipViT


class Deployed(nn.Cell):
    """A network that may take bytes, and may tell which patches it keeps.

    Args:
        kept: Whether to return, after the logits, for each drop the patches that it keeps, int32 [B, K], ascending; as
            `src.schedules.trace.Trace.kept`.
        mean, std: If they are given, images are uint8 [B, H, W, 3], and are normalised by these of pixels from 0 to 1;
            otherwise float32 [B, 3, H, W].
    """

    def __init__(
        self, network: SkipViT, kept: bool, mean: Optional[Sequence[float]] = None, std: Sequence[float] = ()
    ) -> None:
        super().__init__(auto_prefix=False)
        self.network, self.kept, self.uint8 = network, kept, mean is not None
        if mean is not None:
            self.mean, self.std = (Tensor(255 * np.array(one, np.float32).reshape(-1, 1, 1)) for one in (mean, std))

    def construct(self, images: Tensor) -> Union[Tensor, tuple[Tensor, ...]]:
        if self.uint8:
            images = (ops.transpose(ops.cast(images, mstype.float32), (0, 3, 1, 2)) - self.mean) / self.std
        logits, _, all_ids = self.network.forward_with_scores(images)
        return (logits, *self.network.router.follow(all_ids)[0]) if self.kept else logits

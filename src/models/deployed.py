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
        self.network, self.kept, self.uint8, self.plan = network, kept, mean is not None, network.plan
        if mean is not None:
            self.mean, self.std = (Tensor(255 * np.array(one, np.float32).reshape(-1, 1, 1)) for one in (mean, std))

    def construct(self, images: Tensor) -> Union[Tensor, tuple[Tensor, ...]]:
        if self.uint8:
            images = (ops.transpose(ops.cast(images, mstype.float32), (0, 3, 1, 2)) - self.mean) / self.std
        logits, _, all_ids = self.network.forward_with_scores(images)
        return (logits, *self.kept_patches(all_ids)) if self.kept else logits

    def kept_patches(self, all_ids: tuple) -> tuple:
        """Return for each drop the patches that it keeps [B, K], by its ids_shuffle [B, T]."""
        prefix, stage = self.plan.prefix, 0
        all_kept: tuple = ()
        present = None  # every patch, at its own place
        for i in range(len(self.plan.drops)):
            drop = self.plan.drops[i]
            if self.plan.rejoins[i]:
                present = None
            if drop is not None:
                kept = all_ids[stage][:, prefix : prefix + drop.keep] - prefix
                if present is not None:
                    kept = ops.gather_d(present, 1, kept)
                all_kept += (kept,)
                present = kept
                if drop.fused:
                    fused = ops.zeros_like(kept[:, :1]) + (self.plan.num_patches + stage)
                    present = ops.concat((kept, fused), 1)
                stage += 1
        return all_kept

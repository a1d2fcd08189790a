"""What one pass of a schedule did, as arrays."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trace:
    """One pass over B images of N patches, as NumPy arrays.

    Attributes:
        logits: float32 [B, classes].
        attention: For each block float32 [B, N]: the [CLS] token's attention to each patch, averaged over heads, or in
            a model without [CLS] the attention that each patch receives; NaN for patches that are not in the sequence.
        kept: {block of a drop, counted from 1: int32 [B, keep]}, the indices of the patches kept, ascending. A fused
            token made in stage s (counted from 0) has index N+s.
    """

    logits: np.ndarray
    attention: tuple[np.ndarray, ...]
    kept: dict[int, np.ndarray]

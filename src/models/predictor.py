"""What a token is worth, told by a small network (DynamicViT, arXiv 2106.02034, section 3.2).

Shape letters: B images, N patch tokens, C channels.
"""

from typing import Optional

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.config.variants import PREDICTOR_EPSILON
from src.models.layers import dense
from src.models.ops import gelu, layer_norm, sum_kept


class Predictor(nn.Cell):
    """Tell of each patch token [B, N, C] how probable it is to stay and to leave: log probabilities float32 [B, N, 2].

    Half of the channels of each token are replaced by their mean over the tokens that are there. Index 0 is to stay, as
    in the authors' code (`PredictorLG` of DynamicViT).
    """

    def __init__(self, dim: int, act: str, target: str) -> None:
        super().__init__()
        self.half = dim // 2
        self.in_norm = layer_norm(dim, target, PREDICTOR_EPSILON)
        self.in_proj = dense(dim, dim)
        self.out1 = dense(dim, dim // 2)
        self.out2 = dense(dim // 2, dim // 4)
        self.out3 = dense(dim // 4, 2)
        self.act = gelu(act, target)

    def construct(self, x: Tensor, present: Optional[Tensor] = None) -> Tensor:
        """Look at patch tokens [B, N, C].

        Args:
            present: 1 for those that are there and 0 for others, [B, N, 1]; None: all are.
        """
        x = self.act(self.in_proj(self.in_norm(x)))
        own, shared = x[:, :, : self.half], ops.cast(x[:, :, self.half :], mstype.float32)
        present = ops.ones_like(shared[:, :, :1]) if present is None else ops.cast(present, mstype.float32)
        count = sum_kept(present, 1)
        mean = sum_kept(shared * present, 1) / (count + ops.stop_gradient(ops.maximum(1.0 - count, 0.0)))  # 0 of none
        x = ops.concat((own, ops.cast(ops.broadcast_to(mean, shared.shape), own.dtype)), 2)
        x = self.out3(self.act(self.out2(self.act(self.out1(x)))))
        return ops.log_softmax(ops.cast(x, mstype.float32), -1)

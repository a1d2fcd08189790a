"""Predictors in training: tokens leave under masks, and all stay in the sequence (DynamicViT, arXiv 2106.02034).

Shape letters: B images, T tokens with [CLS] first, N patches, C channels, S stages.
"""

from typing import Any, Optional

import numpy as np
from mindspore import Tensor, mutable, nn, ops
from mindspore import dtype as mstype

from src.models.vit import RandomInputs, SkipViT

GUMBEL = 4  # tells these random numbers from others of the same step


class MaskedViT(nn.Cell):
    """A network in training whose predictors decide by chance, as probably as they say, who stays.

    Shapes are those of the dense network: a token that has left is seen by none but itself, in every block from then
    on. Before the first stage all are there, and blocks are those of the dense network, whose attention differs from
    that under a mask of ones by less than 1e-6.

    Args:
        network: Its schedule ranks by `predictor`.
        teacher: Dense and frozen, for images of the same size and the same patches; None: there is none.

    Attributes:
        shares: What each stage is to leave of all patch tokens.
    """

    def __init__(self, network: SkipViT, teacher: Optional[SkipViT] = None) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.teacher: Any = teacher
        self.geometry = network.geometry
        self.plan = network.plan
        self.shares = network.plan.shares
        self.prefix = network.plan.prefix
        self.own = Tensor(np.eye(self.prefix + network.plan.num_patches, dtype=np.float32)[None, None])
        self.labels_tokens = network.geometry.labels_tokens

    def construct(
        self, images: Tensor, drop_path_scale: Optional[Tensor], noise: tuple
    ) -> tuple[Tensor, Tensor, tuple]:
        """Pass images through all blocks.

        Args:
            noise: Of a Gumbel distribution, for each stage float32 [B, N, 2].

        Returns:
            The logits of whole images [B, classes], the patch tokens after the last norm [B, N, C], and the decisions
            of each stage float32 [B, N, 1]: 1 for tokens that stay, 0 for those that have left there or before.
        """
        x, decisions = self.encode(self.network.embed(images), drop_path_scale, noise)
        return self.network.class_logits(x), x[:, self.prefix :], decisions

    def encode(self, x: Tensor, drop_path_scale: Optional[Tensor], noise: tuple) -> tuple[Tensor, tuple]:
        """Pass embedded tokens [B, T, C] through all blocks; return those after the last norm, and the decisions."""
        network = self.network
        present, visible = None, None
        decisions: tuple = ()
        for i in range(network.depth):
            predictor = network.predictor_of[i]
            if predictor is not None:
                told = network.predictors[predictor](x[:, self.prefix :], present)
                present = decide(told, noise[len(decisions)], present)
                visible = self.visible(present)
                decisions += (present,)
            scale = network.path_scale(drop_path_scale, i, 0)
            if visible is None:
                x, _, _ = network.blocks[i].attn_half(x, scale)
            else:
                x = network.blocks[i].masked_half(x, visible, scale)
            x = network.blocks[i].mlp_half(x, network.path_scale(drop_path_scale, i, 1))
        return network.norm(x), decisions

    def visible(self, present: Tensor) -> Tensor:
        """Return which token sees which, float32 [B, 1, T, T]: those that are there, and itself.

        Args:
            present: Of the patch tokens, [B, N, 1].
        """
        keys = ops.expand_dims(ops.transpose(present, (0, 2, 1)), 1)  # [B, 1, 1, N]
        keys = ops.concat((ops.ones_like(keys[:, :, :, : self.prefix]), keys), 3)
        return keys + (1.0 - keys) * self.own

    def taught(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the teacher says: logits [B, classes] and patch tokens [B, N, C], without a gradient."""
        x, _, _, _ = self.teacher.encode(self.teacher.embed(images))
        return ops.stop_gradient(self.teacher.class_logits(x)), ops.stop_gradient(x[:, self.teacher.plan.prefix :])

    def label_tokens(self, own: Tensor, taught: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the network's patch tokens, and the teacher's of its own [B, N, classes] (LV-ViT)."""
        return self.network.aux_head(own), ops.stop_gradient(self.teacher.aux_head(taught))

    def sample(self, images: int, *seed: int) -> RandomInputs:
        """Draw the random numbers of a pass over so many images, the same for the same seed."""
        shape = (images, self.plan.num_patches, 2)
        generator = np.random.default_rng([*seed, GUMBEL])
        noise = tuple(Tensor(generator.gumbel(size=shape).astype(np.float32)) for _ in self.shares)
        return RandomInputs(self.network.sample(images, *seed).drop_path_scale, mutable(noise))


def decide(told: Tensor, noise: Tensor, before: Optional[Tensor]) -> Tensor:
    """Decide which tokens stay: float32 [B, N, 1], 1 or 0; its gradient is that of the probability, at temperature 1.

    Args:
        told: Log probabilities to stay and to leave, float32 [B, N, 2].
        noise: Of a Gumbel distribution, which makes the larger sum a draw by these probabilities.
        before: The decision of the stage before, which is never taken back.
    """
    told = told + noise
    stays = ops.softmax(told, -1)[:, :, :1]
    hard = ops.cast(ops.greater_equal(told[:, :, :1], told[:, :, 1:]), mstype.float32)
    decision = hard + (stays - ops.stop_gradient(stays))
    return decision if before is None else before * decision

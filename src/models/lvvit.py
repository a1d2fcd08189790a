"""LV-ViT: a stem of convolutions, and a head that classifies every patch token (arXiv 2104.10858).

Shape letters: B images, T tokens with [CLS] first, N patches, K patch tokens that are left, C channels.
"""

from typing import Optional

from mindspore import Tensor, ops

from src.config.variants import TOKENS_SHARE
from src.models.ops import less, mix_reversed, multiply
from src.models.vit import SkipViT

ABSENT = 1e4  # below any logit, within float16


class LVViT(SkipViT):
    """A `SkipViT` whose logits are those of [CLS] and half of the largest of the patch tokens', class by class.

    A fused token is left out of the largest: none was ever labelled. In training `label_logits` gives both apart.
    """

    def classify(self, x: Tensor, all_ids: tuple) -> Tensor:
        own = self.aux_head(x[:, 1:])
        places = self.router.follow(all_ids)[1] if self.plan.schedule.fused else None
        if places is not None:
            is_patch = ops.cast(less(places, self.plan.num_patches), own.dtype)
            own = own + multiply(ops.expand_dims(is_patch, 2) - 1.0, ABSENT)
        return self.class_logits(x) + multiply(ops.reduce_max(own, 1), TOKENS_SHARE)

    def label_logits(
        self,
        images: Tensor,
        drop_path_scale: Optional[Tensor] = None,
        random_scores: Optional[tuple] = None,
        mixed: Optional[Tensor] = None,
    ) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        """Return the logits of [CLS] [B, classes] and of the patch tokens that are left [B, K, classes], in training.

        Args:
            mixed: Float [N], 1 for patches that the image has of its partner, the same image of the reversed batch
                (MixToken, section 3.3), and 0 for its own; None: all are its own.

        Returns:
            Both logits, and the patch of each token, int32 [B, K], for a fused one N or more; None: all at their own.
        """
        x = self.patch_embed(images, self.grid)
        if mixed is not None:
            x = mix_reversed(x, ops.cast(ops.reshape(mixed, (1, -1, 1)), x.dtype))
        x, _, _, all_ids = self.encode(self.with_prefix(x), drop_path_scale, random_scores)
        return self.class_logits(x), self.aux_head(x[:, 1:]), self.router.follow(all_ids)[1]

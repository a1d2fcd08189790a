"""Token labelling: every patch token is classified too (LV-ViT, arXiv 2104.10858, sections 3.2 and 3.3).

Shape letters: B images, N patches in R rows and S columns, K patch tokens that are left, C classes; label maps are of
h x w places.
"""

from typing import Optional

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.data.label_maps import BEST
from src.data.mixing import draw_box
from src.models.ops import less, mix_reversed, multiply
from src.training.loss import Loss

MIX = 3  # tells these random numbers from others of the same step


class TokenLabelling(nn.Cell):
    """The cross-entropy of [CLS], and of the patch tokens that are left; fused tokens were never labelled.

    Without label maps a patch has the label of its image: (labels int [B], images, *random inputs). With them the
    [CLS] token's target is made of the map too: (labels, images, maps float [B, 2, 5, h, w] of scores and classes, rows
    [B, R+1, h], columns [B, S+1, w], *random inputs), where the products with rows and columns cut the map to the
    patches, and in the last row and column to the whole crop; see `src.data.label_maps`.

    Args:
        network: With `label_logits`.
        smoothing: Probability spread over all classes.
        weight: Of the patch tokens' loss; the [CLS] token's is 1.
        mix_alpha: MixToken's: a box of the tokens, of a share by Beta(alpha, alpha), is another image's; 0 for none.
        has_maps: Whether the data gives label maps.
    """

    def __init__(self, network: nn.Cell, smoothing: float, weight: float, mix_alpha: float, has_maps: bool) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.grid = network.geometry.grid
        self.num_patches = network.geometry.num_patches
        self.num_classes = network.geometry.num_classes
        self.smoothing, self.spread = smoothing, smoothing / self.num_classes
        self.weight, self.mix_alpha, self.has_maps = weight, mix_alpha, has_maps
        self.total = 1 + self.spread if has_maps else 1.0  # what the probabilities of a target sum to
        self.loss = Loss(self.num_classes, smoothing)
        self.product = ops.BatchMatMul()

    def construct(self, labels: Tensor, images: Tensor, *others: object) -> Tensor:
        if self.has_maps:
            whole, patches = self.targets_of_maps(*others[:3])
            others = others[3:]
        else:
            whole, patches = self.targets_of_labels(labels)
        scale, scores, mixed = others
        logits, token_logits, places = self.network.label_logits(images, scale, scores, mixed)
        if mixed is not None:
            whole = mix_reversed(whole, ops.reduce_mean(mixed))
            patches = mix_reversed(patches, ops.reshape(mixed, (1, -1, 1)))
        return ops.reduce_mean(self.cross_entropy(logits, whole)) + multiply(
            self.loss_of_tokens(token_logits, patches, places), self.weight
        )

    def targets_of_labels(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the targets of the images [B, C] and of their patches [B, N, C], the same for each."""
        whole = self.loss.targets(labels)
        return whole, ops.broadcast_to(ops.expand_dims(whole, 1), (-1, self.num_patches, -1))

    def targets_of_maps(self, maps: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the targets of the images [B, C] and of their patches [B, N, C].

        A class that is not among a place's five has score 0 there, and smoothing is that of the authors' code.
        """
        height, width = maps.shape[3:]
        scores = ops.reshape(maps[:, 0], (-1, BEST, height * width, 1))
        classes = ops.cast(ops.reshape(maps[:, 1], (-1, BEST, height * width)), mstype.int32)
        dense = ops.zeros_like(scores[:, 0])
        for k in range(BEST):
            dense = dense + scores[:, k] * ops.one_hot(
                classes[:, k], self.num_classes, Tensor(1.0, mstype.float32), Tensor(0.0, mstype.float32)
            )
        cut_rows, cut_columns = rows.shape[1], columns.shape[1]
        dense = self.product(rows, ops.reshape(dense, (-1, height, width * self.num_classes)))
        dense = ops.reshape(dense, (-1, width, self.num_classes))
        columns = ops.broadcast_to(ops.expand_dims(columns, 1), (-1, cut_rows, -1, -1))
        dense = self.product(ops.reshape(columns, (-1, cut_columns, width)), dense)
        dense = ops.softmax(ops.reshape(dense, (-1, cut_rows, cut_columns, self.num_classes)), -1)
        dense = multiply(dense, 1 - self.smoothing + self.spread) + self.spread
        patches = dense[:, :-1, :-1]
        return dense[:, -1, -1], ops.reshape(patches, (-1, self.num_patches, self.num_classes))

    def loss_of_tokens(self, logits: Tensor, targets: Tensor, places: Optional[Tensor]) -> Tensor:
        """Return the mean cross-entropy of patch tokens [B, K, C] with the targets of all patches [B, N, C].

        Args:
            places: The patch of each token, int32 [B, K], for a fused one N or more; None: all are at their places.
        """
        if places is not None:
            targets = ops.gather(targets, ops.minimum(places, self.num_patches - 1), 1, 1)
        shape = (-1, self.num_classes)
        losses = self.cross_entropy(ops.reshape(logits, shape), ops.reshape(targets, shape))
        if places is None:
            return ops.reduce_mean(losses)
        labelled = ops.reshape(ops.cast(less(places, self.num_patches), mstype.float32), (-1,))
        return ops.reduce_sum(losses * labelled) / ops.reduce_sum(labelled)

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each row [n, C]; the kernel's gradient is right for targets that sum to 1."""
        targets = multiply(targets, 1 / self.total)
        return multiply(self.loss.entropy(ops.cast(logits, mstype.float32), targets), self.total)

    def sample(self, images: int, *seed: int) -> tuple:
        """Draw the network's random inputs, and the patches float32 [N] that are another image's, or None."""
        mixed = None
        if self.mix_alpha:
            random = np.random.default_rng([*seed, MIX])
            rows, columns = self.grid
            share = random.beta(self.mix_alpha, self.mix_alpha)
            top, bottom, left, right = draw_box(rows, columns, share, random)
            box = np.zeros(self.grid, np.float32)
            box[top:bottom, left:right] = 1
            mixed = Tensor(box.reshape(-1))
        return (*self.network.sample(images, *seed), mixed)

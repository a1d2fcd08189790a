"""What predictors of who stays are trained by (DynamicViT, arXiv 2106.02034, section 3.4).

Shape letters: B images, N patches, C channels or classes, S stages.
"""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.config import PredictorConfig
from src.models.ops import multiply
from src.training.loss import Loss


class Distillation(nn.Cell):
    """The cross-entropy of the classes, and how far the shares of tokens that stay are from the schedule's.

    With a teacher two terms more: the divergence of its classes, and the distance of its tokens from those that stay at
    last, which is their mean square after the last norm, or where patch tokens have a head the divergence of classes.

    Args:
        network: (images, *random inputs) → logits, patch tokens, decisions of each stage; with `shares` of tokens that
            these are to leave, and `teacher`, `taught`, `labels_tokens` and `label_tokens`; see `src.models.dynamic`.
        options: The weights of the terms; the cross-entropy's is 1.
    """

    def __init__(self, network: nn.Cell, loss: Loss, options: PredictorConfig) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.shares = network.shares
        self.has_teacher = network.teacher is not None
        self.labels_tokens = network.labels_tokens
        self.ratio_weight = options.ratio_weight / len(network.shares)
        self.logits_weight, self.tokens_weight = options.logits_weight, options.tokens_weight

    def construct(self, labels: Tensor, images: Tensor, *random_inputs: object) -> Tensor:
        logits, tokens, decisions = self.network(images, *random_inputs)
        loss = self.loss(logits, labels)
        for decision, share in zip(decisions, self.shares):
            loss = loss + multiply(ratio_loss(decision, share), self.ratio_weight)
        if not self.has_teacher:
            return loss
        told, taught = self.network.taught(images)
        if self.logits_weight:
            loss = loss + multiply(ops.reduce_mean(divergence(told, logits)), self.logits_weight)
        if self.tokens_weight:
            loss = loss + multiply(self.token_loss(tokens, taught, decisions[-1]), self.tokens_weight)
        return loss

    def token_loss(self, tokens: Tensor, taught: Tensor, decision: Tensor) -> Tensor:
        """Return the mean distance of patch tokens [B, N, C] from the teacher's, over those that stay; 0 without any.

        Args:
            decision: 1 for those that stay, [B, N, 1]; no gradient flows through it.
        """
        if self.labels_tokens:
            own, told = self.network.label_tokens(tokens, taught)
            distances = divergence(told, own)
        else:
            apart = ops.cast(tokens, mstype.float32) - ops.cast(taught, mstype.float32)
            distances = ops.reduce_mean(apart * apart, 2)
        stays = ops.stop_gradient(ops.reshape(decision, distances.shape))
        return ops.reduce_sum(distances * stays) / ops.maximum(ops.reduce_sum(stays), 1.0)

    def sample(self, images: int, *seed: int) -> tuple:
        """Draw the network's random inputs."""
        return self.network.sample(images, *seed)


def ratio_loss(decision: Tensor, share: float) -> Tensor:
    """Return the mean over images of the squared distance of the share that stays, of [B, N, 1], from another."""
    apart = ops.reduce_mean(decision, (1, 2)) - share
    return ops.reduce_mean(apart * apart)


def divergence(taught: Tensor, own: Tensor) -> Tensor:
    """Return KL(taught || own) of logits [..., C], float32 [...]."""
    taught = ops.log_softmax(ops.cast(taught, mstype.float32), -1)
    return ops.reduce_sum(ops.exp(taught) * (taught - ops.log_softmax(ops.cast(own, mstype.float32), -1)), -1)

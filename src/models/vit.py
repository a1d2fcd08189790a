"""The Vision Transformer with token skipping, and its entries in MindCV's registry.

Shape letters: B images, T tokens with [CLS] first, N patches, C channels.
"""

import itertools
from typing import Optional, Union

import numpy as np
from mindcv.models.registry import register_model
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal, initializer

from src.config import sides
from src.errors import UserError
from src.models.layers import ACTIVATIONS, Block, PatchEmbed, dense
from src.models.schedule import Geometry, Plan, parse, resolve
from src.models.tokens import Rejoin, Split, fuse, rank


class SkipViT(nn.Cell):
    """A ViT whose unimportant patch tokens skip blocks, or are fused, as a static plan says.

    Images float32 [B, I, H, W] → logits [B, classes]. The plan has no parameters: any plan runs any weights, and
    `with_tokens` gives a second network of another plan over the very same ones. What is random in a pass is a second
    input, from `draw`; without it, stochastic depth takes what MindCV's layer draws.

    Args:
        patch_embed, cls_token, pos_embed, pos_drop, blocks, norm, head: The parts that hold the weights.
        geometry: The sizes that the parts have.
        plan: Which tokens leave and return where, resolved for this geometry.
        auto_prefix: False for parts that have their parameters' names already.
    """

    def __init__(
        self,
        patch_embed: PatchEmbed,
        cls_token: Parameter,
        pos_embed: Parameter,
        pos_drop: nn.Cell,
        blocks: nn.CellList,
        norm: nn.LayerNorm,
        head: nn.Dense,
        geometry: Geometry,
        plan: Plan,
        auto_prefix: bool = True,
    ) -> None:
        super().__init__(auto_prefix=auto_prefix)
        self.patch_embed = patch_embed
        self.cls_token = cls_token
        self.pos_embed = pos_embed
        self.pos_drop = pos_drop
        self.blocks = blocks
        self.norm = norm
        self.head = head
        self.geometry = geometry
        self.plan = plan
        self.depth = geometry.depth
        self.kept = plan.kept
        self.rejoins = plan.rejoins
        self.fused = plan.schedule.fused
        self.random = plan.schedule.random
        self.drop_path_rates = [block.drop_path_rate for block in blocks]
        drawn = [tokens if keep and self.random else 0 for tokens, keep in zip(plan.tokens_in, plan.kept)]
        self.chance_ends = list(itertools.accumulate(drawn))
        self.chance_starts = [end - columns for end, columns in zip(self.chance_ends, drawn)]
        self.splits = nn.CellList([Split(keep) for keep in plan.kept])
        self.joins = nn.CellList([Rejoin(keep) for keep in plan.kept])

    def construct(self, images: Tensor, draws: Optional[Tensor] = None) -> Tensor:
        logits, _, _ = self.trace(images, draws)
        return logits

    def trace(self, images: Tensor, draws: Optional[Tensor] = None) -> tuple[Tensor, tuple, tuple]:
        """Logits [B, classes]; for each block the [CLS] scores [B, T]; for each drop the order [B, T] of its tokens."""
        x = self.embed(images)
        skipped = ()
        all_scores = ()
        orders = ()
        for i in range(self.depth):
            if self.rejoins[i]:
                x = self.return_tokens(x, skipped)
            keep = self.paths(draws, i)
            x, scores = self.blocks[i].attend(x, keep[0])
            all_scores += (scores,)
            if self.kept[i] > 0:
                ranked = self.chance(draws, i) if self.random else scores
                order, inverse = rank(ranked, self.kept[i])
                x, dropped = self.splits[i](x, order, inverse)
                orders += (order,)
                if self.fused:
                    _, dropped_scores = self.splits[i](ops.expand_dims(scores, -1), order, inverse)
                    x = fuse(x, dropped, dropped_scores)
                else:
                    skipped = ((i, dropped, order, inverse),) + skipped
            x = self.blocks[i].transform(x, keep[1])
        return self.head(self.norm(x)[:, 0]), all_scores, orders

    def embed(self, images: Tensor) -> Tensor:
        """[B, I, H, W] → [CLS] and patch tokens with positions, [B, 1+N, C]."""
        patches = self.patch_embed(images)
        cls = ops.broadcast_to(ops.cast(self.cls_token, patches.dtype), (patches.shape[0], 1, patches.shape[2]))
        x = ops.concat((cls, patches), 1)
        return self.pos_drop(x + ops.cast(self.pos_embed, x.dtype))

    def return_tokens(self, x: Tensor, skipped: tuple) -> Tensor:
        """Put the skipped tokens back at their original places, the last drop's first."""
        for i, dropped, order, inverse in skipped:
            x = self.joins[i](x, dropped, order, inverse)
        return x

    def with_tokens(self, tokens: str) -> "SkipViT":
        """The network of another schedule over the same parameters.

        Raises:
            UserError: The spec is refused for this model.
        """
        return SkipViT(
            self.patch_embed, self.cls_token, self.pos_embed, self.pos_drop, self.blocks, self.norm, self.head,
            self.geometry, resolve(parse(tokens), self.geometry), auto_prefix=False,
        )  # fmt: skip

    def paths(self, draws: Optional[Tensor], i: int) -> tuple[Optional[Tensor], Optional[Tensor]]:
        """Stochastic depth's factors [B] for the halves of a block; None where there is none, or none was drawn."""
        if draws is None or self.path_columns() == 0:
            return None, None
        return draws[:, 2 * i], draws[:, 2 * i + 1]

    def chance(self, draws: Optional[Tensor], i: int) -> Tensor:
        """The random scores [B, T] by which a control's drop ranks."""
        if draws is None:
            raise ValueError("a schedule with a random ranking needs the numbers of SkipViT.draw as its second input")
        before = self.path_columns()
        return draws[:, before + self.chance_starts[i] : before + self.chance_ends[i]]

    def path_columns(self) -> int:
        """Columns of `draws` that are stochastic depth's: one for each half of each block, in training."""
        return 2 * self.depth if self.training and max(self.drop_path_rates) > 0 else 0

    def draw(self, images: int, *seed: int) -> tuple[Tensor, ...]:
        """What is random in a pass over so many images.

        In training, stochastic depth's factors (arXiv 1603.09382): 0, or 1 / (1 - rate) for what stays. For a schedule
        with a random ranking, always, the tokens' scores.

        Returns:
            Inputs to add to the images: float32 [B, columns], the same for the same seed; none if nothing is random.
        """
        columns = self.chance_ends[-1]
        if not self.path_columns() + columns:
            return ()
        generator = np.random.default_rng(seed)
        rates = np.repeat(self.drop_path_rates, 2)[: self.path_columns()]
        paths = (generator.random((images, len(rates))) >= rates) / (1 - rates)
        return (Tensor(np.concatenate([paths, generator.random((images, columns))], axis=1).astype(np.float32)),)

    def no_weight_decay(self) -> set[str]:
        """Names that MindCV's `create_optimizer` exempts from weight decay, as timm does."""
        return {"cls_token", "pos_embed"}


def build(
    tokens: str = "none",
    image_size: Union[int, tuple[int, int]] = 224,
    patch_size: int = 16,
    embed_dim: int = 384,
    depth: int = 12,
    num_heads: int = 6,
    mlp_ratio: float = 4.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    act: str = "gelu_tanh",
    align_tokens: int = 1,
) -> SkipViT:
    """Build a SkipViT.

    Args:
        tokens: The schedule, as `src.models.schedule` reads it.
        image_size: Pixels, of a square's side or (height, width).
        patch_size: Pixels of a patch's side.
        drop_rate: Dropout after position embedding, projection and MLP layers.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0 (arXiv 1603.09382).
        act: `gelu_tanh` or `gelu_erf`.
        align_tokens: Drops leave a multiple of so many tokens; 16 is what Ascend's cube unit works in.

    Raises:
        UserError: Sizes that do not fit together, an unknown `act`, a refused spec.
    """
    height, width = sides(image_size)
    if height % patch_size or width % patch_size or min(height, width) < patch_size:
        raise UserError(
            f"model.image_size {height}x{width} is not a multiple of the patch size {patch_size};"
            f" the nearest is {_nearest(height, patch_size)}x{_nearest(width, patch_size)}"
        )
    if embed_dim % num_heads:
        raise UserError(f"model.embed_dim {embed_dim} is not a multiple of model.num_heads {num_heads}")
    if act not in ACTIVATIONS:
        raise UserError(f"model.act {act!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    patch_embed = PatchEmbed((height, width), patch_size, in_channels, embed_dim)
    num_patches = patch_embed.grid[0] * patch_embed.grid[1]
    mlp_dim = int(embed_dim * mlp_ratio)
    if mlp_dim < 1:
        raise UserError(f"model.mlp_ratio {mlp_ratio:g} leaves no channel in the MLP of width {embed_dim}")
    geometry = Geometry(num_patches, patch_embed.patch_dim, depth, embed_dim, mlp_dim, num_classes, align_tokens)
    plan = resolve(parse(tokens), geometry)
    rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
    return SkipViT(
        patch_embed,
        cls_token=Parameter(initializer(TruncatedNormal(0.02), (1, 1, embed_dim)), name="cls_token"),
        pos_embed=Parameter(initializer(TruncatedNormal(0.02), (1, 1 + num_patches, embed_dim)), name="pos_embed"),
        pos_drop=nn.Dropout(p=drop_rate) if drop_rate else nn.Identity(),
        blocks=nn.CellList([Block(embed_dim, num_heads, mlp_dim, act, drop_rate, rate) for rate in rates]),
        norm=nn.LayerNorm((embed_dim,), epsilon=1e-6),
        head=dense(embed_dim, num_classes),
        geometry=geometry,
        plan=plan,
    )


def _nearest(pixels: int, patch_size: int) -> int:
    return max(1, round(pixels / patch_size)) * patch_size


def _variant(sizes: dict, pretrained: bool, arguments: dict) -> SkipViT:
    if pretrained:
        raise UserError("there are no pretrained weights to download; load a file with src.weights.load_timm")
    return build(**{**sizes, **arguments})


@register_model
def skipvit_ti_16_224(pretrained: bool = False, **kwargs: Optional[object]) -> SkipViT:
    """ViT-Ti/16 (DeiT-Ti's sizes); keyword arguments as `build`."""
    return _variant({"embed_dim": 192, "num_heads": 3}, pretrained, kwargs)


@register_model
def skipvit_s_16_224(pretrained: bool = False, **kwargs: Optional[object]) -> SkipViT:
    """ViT-S/16 (DeiT-S's sizes), the paper's model; keyword arguments as `build`."""
    return _variant({"embed_dim": 384, "num_heads": 6}, pretrained, kwargs)


@register_model
def skipvit_b_16_224(pretrained: bool = False, **kwargs: Optional[object]) -> SkipViT:
    """ViT-B/16 (DeiT-B's sizes); keyword arguments as `build`."""
    return _variant({"embed_dim": 768, "num_heads": 12}, pretrained, kwargs)

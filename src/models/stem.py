"""LV-ViT's patch embedding: convolutions before the patches (arXiv 2104.10858; `PatchEmbed4_2` of TokenLabeling)."""

from mindspore import Tensor, nn

from src.models.convolution import convolution
from src.models.layers import PatchEmbed
from src.models.ops import batch_norm
from src.schedules.geometry import STEM_CHANNELS


class ConvStem(PatchEmbed):
    """Embed images [B, I, H, W] of a grid of H/P rows and W/P columns as patch tokens [B, (H/P)·(W/P), C], row by row.

    Three convolutions halve height and width, and what they make is cut into patches of half the size.
    """

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int, target: str) -> None:
        super().__init__(patch_size // 2, STEM_CHANNELS, embed_dim)
        self.conv1 = convolution(in_channels, STEM_CHANNELS, 7, 2, target)
        self.bn1 = batch_norm(STEM_CHANNELS, target)
        self.conv2 = convolution(STEM_CHANNELS, STEM_CHANNELS, 3, 1, target)
        self.bn2 = batch_norm(STEM_CHANNELS, target)
        self.conv3 = convolution(STEM_CHANNELS, STEM_CHANNELS, 3, 1, target)
        self.bn3 = batch_norm(STEM_CHANNELS, target)
        self.relu = nn.ReLU()

    def construct(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        return self.embed(x, grid)

"""Table 1 of SkipViT (arXiv 2401.15293): ViT-S/16 on ImageNet-1k, trained from scratch on Ascend 910A."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """The paper's result for a schedule: training images per second, and top-1 in percent."""

    img_s: float
    top1: float


TABLE1: dict[str, PublishedResult] = {
    "none": PublishedResult(4503, 70.17),
    "6(45%)+fused": PublishedResult(4963, 68.39),
    "4,7(30%,30%)+10": PublishedResult(5092, 69.73),
    "4,7(30%,30%)+11": PublishedResult(5227, 69.40),
    "6,8(35%,35%)+10": PublishedResult(4711, 70.53),
    "6,8(35%,35%)+11": PublishedResult(4838, 70.41),
    "6(45%)+11": PublishedResult(4944, 70.64),
    "6(50%)+11": PublishedResult(5021, 70.27),
    "6(55%)+11": PublishedResult(5098, 70.16),
}

# trained under these, evaluated dense: TREAD's routes (arXiv 2501.04765) and random-LTD's (arXiv 2211.11586)
RELATIVES = ("<3(50%,random)+10", "<3(50%,random)+11", "<2..11(50%,random)+next")

# step = FIXED_SHARE + (1 - FIXED_SHARE) x MACs, relative to dense, fits the eight img/s of Table 1 within 3.7%
FIXED_SHARE = 0.5


def fitted_gain(ideal_gain: float) -> float:
    """Return the gain of a schedule on the paper's machine, where half of a step does not shrink with the tokens."""
    return 1 / (FIXED_SHARE + (1 - FIXED_SHARE) / (1 + ideal_gain)) - 1

"""What decides which tokens leave: the ranking words of the notation. Ties go to the lowest index.

cls        the [CLS] token's attention, averaged over heads (SkipViT, EViT); what no word means
random     random numbers, others in every step
lowest     the [CLS] token's attention, least first: a control
norm       the L2 norm of the token where it leaves; the largest stay
received   the attention that a token receives, averaged over heads and over all tokens
stride     one in every so many tokens stays, whatever the image shows
centre     those nearest to the middle of the image stay, whatever it shows
predictor  a small network before the block, which is trained to tell who stays (DynamicViT, arXiv 2106.02034)
oracle     the [CLS] attention of a frozen dense network, `train.oracle`: in training alone, evaluation ranks by `cls`
"""

from collections.abc import Sequence

RANKINGS = ("cls", "random", "lowest", "norm", "received", "stride", "centre", "predictor", "oracle")
BY_ATTENTION = ("cls", "lowest", "received", "oracle")  # known only after a block's attention
BY_CLS = ("cls", "lowest", "oracle")  # by the [CLS] token's
GIVEN = ("random", "oracle")  # that the network is given beside the images
FIXED = ("stride", "centre")  # of which the plan knows who stays


def fixed_positions(ranking: str, indices: Sequence[int], keep: int, columns: int, rows: int) -> tuple[int, ...]:
    """Return which of the patch tokens that are present stay under a fixed ranking, as ascending positions.

    Args:
        indices: The patch of each token that is present, counted row by row on the grid.
        keep: How many stay.
    """
    if ranking == "stride":
        return tuple(i * len(indices) // keep for i in range(keep))

    def distance(position: int) -> int:
        row, column = divmod(indices[position], columns)
        return (2 * row - rows + 1) ** 2 + (2 * column - columns + 1) ** 2

    return tuple(sorted(sorted(range(len(indices)), key=distance)[:keep]))

"""Set a network's weights to those that a training starts from."""

from src.models.vit import SkipViT
from src.weights.initial import Initial
from src.weights.load import HEADS, assign
from src.weights.timm import PREDICTORS

LEFT_OUT = (*HEADS, PREDICTORS)  # how the names begin of what a file need not have


def initialise(network: SkipViT, initial: Initial) -> None:
    """Set a network's weights; heads and predictors that are not taken stay, positions are resampled to the grid."""
    own = {weight.name: weight.asnumpy() for weight in network.get_parameters() if weight.name.startswith(LEFT_OUT)}
    arrays = {**own, **initial.arrays}
    if initial.grid != network.position_grid:
        arrays["pos_embed"] = network.positions_from(arrays["pos_embed"], initial.grid)
    assign(network, arrays, initial.file.path)

"""Set a network's weights to those that a training starts from."""

from src.models.vit import SkipViT
from src.weights.initial import Initial
from src.weights.load import HEADS, PREDICTORS, assign

FRESH = (*HEADS, PREDICTORS)  # how the names of weights begin that need not be taken


def initialise(network: SkipViT, initial: Initial) -> None:
    """Set a network's weights; heads and predictors that are not taken stay as they are.

    Positions are resampled to the grid.
    """
    own = {weight.name: weight.asnumpy() for weight in network.get_parameters() if weight.name.startswith(FRESH)}
    arrays = {**own, **initial.arrays}
    if initial.grid != network.position_grid:
        arrays["pos_embed"] = network.positions_from(arrays["pos_embed"], initial.grid)
    assign(network, arrays, initial.file.path)

"""Set a network's weights to those that a training starts from."""

from src.models.vit import SkipViT
from src.weights.initial import Initial
from src.weights.load import HEADS, assign


def initialise(network: SkipViT, initial: Initial) -> None:
    """Set a network's weights; a head that is not taken stays as it is, positions are resampled to the grid."""
    own = {weight.name: weight.asnumpy() for weight in network.get_parameters() if weight.name.startswith(HEADS)}
    arrays = dict(initial.arrays) if any(name in initial.arrays for name in own) else {**own, **initial.arrays}
    if initial.grid != network.position_grid:
        arrays["pos_embed"] = network.positions_from(arrays["pos_embed"], initial.grid)
    assign(network, arrays, initial.file.path)

"""Set a network's weights to those that a training starts from."""

from src.models.positions import resampling
from src.models.vit import SkipViT
from src.weights.initial import Initial
from src.weights.load import HEADS, assign


def initialise(network: SkipViT, initial: Initial) -> None:
    """Set a network's weights; a head that is not taken stays as it is, positions are resampled to the grid."""
    own = {weight.name: weight.asnumpy() for weight in network.get_parameters() if weight.name.startswith(HEADS)}
    arrays = dict(initial.arrays) if any(name in initial.arrays for name in own) else {**own, **initial.arrays}
    positions, grid = arrays["pos_embed"], network.geometry.grid
    if initial.grid != grid:
        prefix = positions.shape[1] - initial.grid[0] * initial.grid[1]
        arrays["pos_embed"] = (resampling(initial.grid, grid, prefix) @ positions[0])[None]
    assign(network, arrays, initial.file.path)

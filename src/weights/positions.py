"""Position embeddings for another number of patches: bicubic resampling as one static matrix, in NumPy."""

import math

import numpy as np

SHARPNESS = -0.75  # of the cubic kernel, as PyTorch's, which timm resamples with


def resampling(old: tuple[int, int], new: tuple[int, int], prefix: int = 1) -> np.ndarray:
    """Return float32 [P+N', P+N] that takes the positions of P prefix tokens and a grid to those of another grid.

    The grid becomes R_h · grid · R_wᵀ; as positions stand row by row, that is one product by the Kronecker product of
    R_h and R_w. The position of [CLS] stays as it is.

    Args:
        old: Rows and columns of the grid of N patches.
        new: Rows and columns of the grid of N' patches.
        prefix: Tokens before the patches: 1 for [CLS].
    """
    patches = np.kron(bicubic(old[0], new[0]), bicubic(old[1], new[1]))
    matrix = np.eye(prefix + patches.shape[0], prefix + patches.shape[1], dtype=np.float32)
    matrix[prefix:, prefix:] = patches
    return matrix


def adapt(positions: np.ndarray, prefix: int, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Return a position embedding [1, P+N, C] of P prefix tokens and a grid for another grid, [1, P+N', C].

    One with another number of tokens is of another model, and returned as it is.
    """
    if positions.shape[1] != prefix + old[0] * old[1]:
        return positions
    first, patches = np.split(positions, [prefix], axis=1)
    return np.concatenate([first, resample(patches, old, new)], axis=1)


def resample(positions: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Return the positions of a grid [1, N, C] for another grid, [1, N', C], in their own type."""
    grid = positions.reshape(*old, -1)
    rows = np.tensordot(bicubic(old[0], new[0]), grid, (1, 0))
    both = np.tensordot(bicubic(old[1], new[1]), rows, (1, 1)).swapaxes(0, 1)
    return both.reshape(1, new[0] * new[1], -1).astype(positions.dtype)


def bicubic(old: int, new: int) -> np.ndarray:
    """Return float64 [new, old]: resampling along one side, each row of which sums to 1.

    Half-pixel centres, the border repeated, no antialiasing: PyTorch's `interpolate(mode="bicubic")`. Equal sizes give
    the identity.
    """
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        first = math.floor(centre) - 1
        for j in range(first, first + 4):
            matrix[i, min(max(j, 0), old - 1)] += _cubic(abs(centre - j))
    return matrix


def _cubic(distance: float) -> float:
    """Return Keys' cubic convolution kernel (1981)."""
    a, x = SHARPNESS, distance
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a if x < 2 else 0.0

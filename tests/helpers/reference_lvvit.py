"""LV-ViT and token labelling in float64 NumPy, written from the paper and independent of src/: what tests compare with.

Weights have this project's names: blocks.0.norm1.gamma, patch_embed.bn1.moving_mean, patch_embed.proj.weight
[dim, 64 * (patch / 2)**2].
"""

import math
from typing import NamedTuple

import numpy as np

from tests.helpers import reference

EPS = 1e-5


class Outcome(NamedTuple):
    """What a forward pass gives; K patch tokens remain after the last block, without fused ones.

    A fused token that outlives a later drop leaves an image with a patch fewer: its last place is -1 and its aux 0.
    """

    logits: np.ndarray  # [B, classes]: of evaluation, cls + 0.5 * max(aux)
    cls: np.ndarray  # [B, classes]: head([CLS]) alone, of training
    aux: np.ndarray  # [B, K, classes]
    places: np.ndarray  # [B, K]: original places of the tokens of aux, ascending; -1: none
    kept: dict  # {block of a drop: places kept [B, keep]}


def shapes_of(dim=24, depth=4, patch=4, patches=16, classes=5, hidden=72, stem=64):
    """{parameter: shape}, the statistics of the stem included."""
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + patches, dim), "norm.gamma": (dim,), "norm.beta": (dim,),
              "patch_embed.proj.weight": (dim, stem * (patch // 2) ** 2), "patch_embed.proj.bias": (dim,)}  # fmt: skip
    for name in ("head", "aux_head"):
        shapes |= {f"{name}.weight": (classes, dim), f"{name}.bias": (classes,)}
    for i, shape in enumerate([(stem, 3, 7, 7), (stem, stem, 3, 3), (stem, stem, 3, 3)], 1):
        shapes[f"patch_embed.conv{i}.weight"] = shape
        shapes |= {f"patch_embed.bn{i}.{name}": (stem,) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    for i in range(depth):
        for name, shape in (("attn.qkv", (3 * dim, dim)), ("attn.proj", (dim, dim)),
                            ("mlp.fc1", (hidden, dim)), ("mlp.fc2", (dim, hidden))):  # fmt: skip
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
        del shapes[f"blocks.{i}.attn.qkv.bias"]
        shapes |= {f"blocks.{i}.norm{j}.{name}": (dim,) for j in (1, 2) for name in ("gamma", "beta")}
    return shapes


def random_weights(seed, **sizes):
    """Weights of a small LV-ViT (`shapes_of`); large enough that attention differs from token to token."""
    random = np.random.RandomState(seed)
    weights = {name: random.standard_normal(shape) * 0.25 for name, shape in shapes_of(**sizes).items()}
    for name, weight in weights.items():
        if name.endswith("gamma"):
            weight += 1
        elif name.endswith("moving_variance"):
            weight[:] = 0.5 + np.abs(weight)
        elif "patch_embed" in name and name.endswith("weight"):
            weight *= 6 / math.sqrt(weight[0].size)  # keeps the size of what passes through
    return weights


def forward(weights, images, spec="none", heads=4, patch=4, divisor=2, act="erf", training=False, mask=None):
    """The `Outcome` for images [B, 3, H, W].

    `training` normalises the stem by the batch. Where `mask` [N] is 1, MixToken's token is that of image B - 1 - b.
    """
    grid = images.shape[2] // patch, images.shape[3] // patch
    weights = timm_names(weights)
    rows = []
    for tokens in embed(weights, images, patch, training, mask):
        tokens, kept, _ = reference.walk(weights, tokens, spec, grid, heads, act, eps=EPS, divisor=divisor)
        rows.append((*read(weights, tokens, math.prod(grid)), kept))
    cls, largest = np.stack([row[0] for row in rows]), np.stack([row[1].max(0) for row in rows])
    missing = [max(len(row[2]) for row in rows) - len(row[2]) for row in rows]
    aux = np.stack([np.pad(row[1], ((0, few), (0, 0))) for row, few in zip(rows, missing)])
    places = np.stack([np.pad(row[2], (0, few), constant_values=-1) for row, few in zip(rows, missing)])
    kept = {block: np.array([row[3][block] for row in rows]) for block in rows[0][3]}
    return Outcome(cls + 0.5 * largest, cls, aux, places, kept)


def timm_names(weights):
    return {name.replace(".gamma", ".weight").replace(".beta", ".bias"): weight for name, weight in weights.items()}


def embed(weights, images, patch, training=False, mask=None):
    """A list of (place, vector) for each image: [CLS], place -1, and the patches, with their positions."""
    vectors = stem(weights, images.astype(np.float64), patch, training)
    if mask is not None:
        vectors = np.where(np.asarray(mask).ravel()[:, None] == 1, vectors[::-1], vectors)
    prefix = np.broadcast_to(weights["cls_token"], (len(images), 1, vectors.shape[2]))
    vectors = np.concatenate([prefix, vectors], axis=1) + weights["pos_embed"]
    return [list(enumerate(rows, -1)) for rows in vectors]


def stem(weights, x, patch, training):
    """Patch embeddings [B, N, dim], row by row."""
    for i, (stride, padding) in enumerate([(2, 3), (1, 1), (1, 1)], 1):
        x = convolve(x, weights[f"patch_embed.conv{i}.weight"], stride, padding)
        x = np.maximum(batch_norm(weights, f"patch_embed.bn{i}", x, training), 0)
    kernel = weights["patch_embed.proj.weight"].reshape(-1, x.shape[1], patch // 2, patch // 2)
    x = convolve(x, kernel, patch // 2, 0)
    return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1) + weights["patch_embed.proj.bias"]


def convolve(x, kernel, stride, padding):
    """[B, c, H, W] and a kernel [o, c, k, k] to [B, o, h, w]; no bias."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.stack([np.tensordot(kernel, image, axes=([1, 2, 3], [0, 3, 4])) for image in windows])


def batch_norm(weights, name, x, training):
    mean, variance = weights[f"{name}.moving_mean"], weights[f"{name}.moving_variance"]
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    scale = weights[f"{name}.weight"] / np.sqrt(variance + EPS)
    return (x - mean[:, None, None]) * scale[:, None, None] + weights[f"{name}.bias"][:, None, None]


def read(weights, tokens, patches):
    """Class logits of [CLS], auxiliary logits of the patches that remain, and their places."""
    tokens = sorted((token for token in tokens if token[0] < patches), key=lambda token: token[0])
    vectors = np.stack([vector for _, vector in tokens])
    normed = reference.norm(vectors, weights["norm.weight"], weights["norm.bias"], EPS)
    cls = normed[0] @ weights["head.weight"].T + weights["head.bias"]
    aux = normed[1:] @ weights["aux_head.weight"].T + weights["aux_head.bias"]
    return cls, aux, np.array([place for place, _ in tokens[1:]])


def mix_mask(lam, centre, grid):
    """MixToken's box around `centre` as a mask [rows, columns], 1 inside; an odd side loses one, the grid clips it."""
    mask = np.zeros(grid)
    ends = []
    for middle, side in zip(centre, grid):
        half = int(side * math.sqrt(1 - lam)) // 2
        ends.append(slice(max(middle - half, 0), min(middle + half, side)))
    mask[tuple(ends)] = 1
    return mask


def roi_matrix(start, end, size, bins):
    """RoIAlign (not aligned, as many samples as whole places a bin touches) along one axis of a map: [bins, size].

    The crop goes from `start` to `end`, shares of the image's side.
    """
    first, last = start * size - 0.5, end * size - 0.5
    length = max(last - first, 1) / bins
    samples = math.ceil(length)
    matrix = np.zeros((bins, size))
    for i in range(bins):
        for j in range(samples):
            at = first + length * (i + (j + 0.5) / samples)
            if not -1 <= at <= size:
                continue
            at = min(max(at, 0), size - 1)
            below = int(at)
            matrix[i, below] += (1 - (at - below)) / samples
            matrix[i, min(below + 1, size - 1)] += (at - below) / samples
    return matrix


def roi_matrices(start, end, size, grid):
    """The rows of `roi_matrix` for a grid's side and, last, the row that covers the whole crop: [grid + 1, size]."""
    return np.concatenate([roi_matrix(start, end, size, bins) for bins in (grid, 1)])


def map_targets(maps, rows, columns, classes, smoothing=0.1):
    """Targets of the tokens [B, N, classes] and of the images [B, classes] from label maps.

    maps [B, 2, 5, h, w]: scores, class numbers; a class outside the five has score 0. rows [B, g + 1, h] and columns
    [B, g + 1, w] interpolate, the last of each over the whole crop. A smoothed target sums to 1 + smoothing / classes.
    """
    tokens, whole = [], []
    for (scores, numbers), down, across in zip(maps.astype(np.float64), rows, columns):
        dense = np.zeros((classes, *scores.shape[1:]))
        np.put_along_axis(dense, numbers.astype(int), scores, axis=0)
        at_grid = down @ dense @ across.T
        whole.append(at_grid[:, -1, -1])
        tokens.append(at_grid[:, :-1, :-1].reshape(classes, -1).T)
    return tuple(
        reference.softmax(np.stack(scores)) * (1 - smoothing + smoothing / classes) + smoothing / classes
        for scores in (tokens, whole)
    )


def image_targets(labels, patches, classes, smoothing=0.1):
    """Targets like `map_targets` without maps: each token has its image's label, smoothed as usual (sums to 1)."""
    whole = np.eye(classes)[np.asarray(labels)] * (1 - smoothing) + smoothing / classes
    return np.repeat(whole[:, None], patches, axis=1), whole


def mixed_targets(tokens, whole, mask):
    """Targets after MixToken: tokens by the mask [N], images by the share of the mask."""
    inside = np.asarray(mask).ravel()
    own = 1 - inside.mean()
    return np.where(inside[:, None] == 1, tokens[::-1], tokens), own * whole + (1 - own) * whole[::-1]


def token_label_loss(outcome, tokens, whole, cls_weight=1.0, dense_weight=1.0):
    """The loss of the remaining tokens, each with the target of its original place, and of the images."""
    image, number = np.nonzero(outcome.places >= 0)
    at_places = tokens[image, outcome.places[image, number]]
    dense = cross_entropy(outcome.aux[image, number], at_places)
    return cls_weight * cross_entropy(outcome.cls, whole) + dense_weight * dense


def cross_entropy(logits, targets):
    return -(targets * log_softmax(logits)).sum(-1).mean()


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

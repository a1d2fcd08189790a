"""What the original codes of LV-ViT and DynamicViT computed of small networks with random weights: originals.npz.

The weights, images and labels are made here, the results were computed with PyTorch 2.14 in float64 by
zihangJiang/TokenLabeling (9dbfd59) and raoyongming/DynamicViT (1322e62). Changed in their code: imports that timm and
PyTorch have lost, np.int, 14 * 14 tokens to the number of patches, MixToken's box and Gumbel noise to given ones; and,
under "kept/", the largest product of a row of attention to that over kept keys ("all/" is as it was).

A case is stored under "lvvit/", "dynamicvit/" (a ViT) and "dynamicvit_lvvit/":

    eval/logits                  of evaluation
    eval/kept/{block}            original places kept before a block [4, keep]
    train/cls, train/aux         LV-ViT in training, with `BOX` of MixToken; aux is in the place it was computed
    train/loss                   token labelling's, of `label_maps`, the dense part weighing 0.5
    train/moved/{parameter}      the stem's statistics after one batch, momentum 0.9
    {kept,all}/cls, tokens       DynamicViT in training with `NOISE`; tokens: normed features, an LV-ViT's aux
    {kept,all}/decision/{block}  1 for kept [4, 16]
    {kept,all}/loss              with weights 2, 0.5, 0.5 against a dense teacher of the same weights, `TARGETS`
    {train,kept,all}/gradients   `probe` of the loss's gradients [trained parameters, 2], by our names and shapes
"""

import re
from pathlib import Path

import numpy as np

from tests.helpers import reference, reference_lvvit
from tests.helpers.reference_dynamicvit import random_predictors

CLASSES, HEADS, PATCH, GRID, DIVISOR = 8, 4, 4, (4, 4), 2  # of width 24, depth 4, images of 16 pixels
SHARPNESS = 2  # of queries and keys in DynamicViT's cases
STAGES = "2,3(30%,50%,predictor)"
SHARES = [0.7, 0.35]
BOX = np.zeros(GRID)
BOX[0:2, 1:4] = 1
LABELS = np.array([3, 0, 7, 3])
TARGETS = np.float32(0.9 * np.eye(CLASSES)[LABELS] + 0.1 / CLASSES)
IMAGES = np.random.RandomState(11).standard_normal((4, 3, 16, 16)).astype(np.float32)
NOISE = np.random.RandomState(12).gumbel(size=(2, 4, 16, 2)).astype(np.float32)
PREDICTOR = {"in_norm": "in_conv.0", "in_proj": "in_conv.1", "out1": "out_conv.0", "out2": "out_conv.2",
             "out3": "out_conv.4"}  # fmt: skip
CASES = ["lvvit", "dynamicvit", "dynamicvit_lvvit"]


def weights_of(case):
    """Weights of a case under our names, in float32."""
    if case == "dynamicvit":
        weights = reference.random_weights(0, depth=4, classes=CLASSES)
        weights = {
            re.sub(r"(norm\d?)\.(weight|bias)", lambda m: f"{m[1]}.{'gamma' if m[2] == 'weight' else 'beta'}", name): w
            for name, w in weights.items()
        }
    else:
        weights = reference_lvvit.random_weights(0, classes=CLASSES)
    if case != "lvvit":
        weights |= random_predictors(1, 24, stages=2)
        for i in range(4):  # far from even attention: which keys the largest product is sought among, is seen
            weights[f"blocks.{i}.attn.qkv.weight"][: 2 * 24] *= SHARPNESS
    return {name: weight.astype(np.float32) for name, weight in weights.items()}


def results_of(case):
    """What the original computed: {name: array}."""
    stored = np.load(Path(__file__).with_name("originals.npz"))
    return {name.removeprefix(f"{case}/"): stored[name] for name in stored.files if name.startswith(f"{case}/")}


def label_maps():
    """Maps [4, 2, 5, 5, 5] and crops [4, 4]: top, bottom, left, right as shares of the image."""
    random = np.random.RandomState(13)
    numbers = np.argsort(random.random_sample((4, CLASSES, 5, 5)), axis=1)[:, :5]
    scores = -np.sort(-random.uniform(0, 6, (4, 5, 5, 5)), axis=1)
    starts, sides = random.uniform(0, 0.4, (4, 2)), random.uniform(0.3, 0.6, (4, 2))
    crops = np.stack([starts, starts + sides], axis=2).reshape(4, 4)
    return np.stack([scores, numbers], axis=1).astype(np.float32), crops


def label_matrices():
    """The matrices that interpolate `label_maps`: rows and columns [4, 5, 5] each."""
    crops = label_maps()[1]
    sides = [[reference_lvvit.roi_matrices(*ends, 5, 4) for ends in crops[:, axis]] for axis in ([0, 1], [2, 3])]
    return tuple(np.array(side) for side in sides)


def original_name(name):
    """An original's name of one of our parameters."""
    if found := re.fullmatch(r"predictors\.(\d+)\.(\w+)\.(\w+)", name):
        name = f"score_predictor.{found[1]}.{PREDICTOR[found[2]]}.{found[3]}"
    for our, their in {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
                       "moving_variance": "running_var"}.items():  # fmt: skip
        name = re.sub(rf"\.{our}$", f".{their}", name)
    return name


def original_weights(weights, patch=PATCH):
    """Our weights under an original's names and in its shapes, BatchNorm's counters included."""
    out = {original_name(name): weight for name, weight in weights.items()}
    kernel = out["patch_embed.proj.weight"]
    stem = "patch_embed.conv1.weight" in out
    channels, side = (kernel.shape[1] // (patch // 2) ** 2, patch // 2) if stem else (3, patch)
    out["patch_embed.proj.weight"] = kernel.reshape(-1, channels, side, side)
    if stem:
        out |= {f"patch_embed.bn{i}.num_batches_tracked": np.array(0) for i in (1, 2, 3)}
    return out


def probe(gradients):
    """Of each gradient, by the names' order: its product with its direction, and its norm; [parameters, 2]."""
    along = directions({name: gradient.shape for name, gradient in gradients.items()})
    rows = [(gradients[name].astype(np.float64), along[name]) for name in sorted(gradients)]
    return np.array([((gradient * direction).sum(), np.linalg.norm(gradient)) for gradient, direction in rows])


def directions(shapes):
    """A random direction for each of all trained parameters, {our name: array}."""
    random = np.random.RandomState(14)
    return {name: random.standard_normal(shapes[name]) for name in sorted(shapes)}

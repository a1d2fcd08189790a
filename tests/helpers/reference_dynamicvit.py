"""DynamicViT in float64 NumPy, written from the paper and independent of src/: what the tests compare with.

For a ViT and, where the weights have its stem, an LV-ViT. Weights have this project's names:
predictors.0.in_norm.gamma, predictors.0.in_proj.weight, predictors.0.out1.weight.
"""

import math
from typing import NamedTuple

import numpy as np

from tests.helpers import reference, reference_lvvit
from tests.helpers.reference_lvvit import log_softmax


class Outcome(NamedTuple):
    """What a pass gives; N tokens in the masked one, the K kept at last in the other."""

    logits: np.ndarray  # [B, classes]: of evaluation; an LV-ViT's has half the largest of aux
    cls: np.ndarray  # [B, classes]: head([CLS]) alone
    features: np.ndarray  # [B, K, dim]: patch tokens after the final norm
    aux: np.ndarray | None  # [B, K, classes]: an LV-ViT's auxiliary logits
    places: np.ndarray  # [B, K]: original places of features, ascending
    scores: dict  # {block of a stage: log probabilities [B, tokens, 2], (keep, drop)}
    decisions: dict  # of the masked pass: {block: 1 for kept [B, N]}
    kept: dict  # of the other: {block: original places kept, ascending [B, keep]}


def predictor_shapes(dim, stages=3):
    shapes = {"in_norm.gamma": (dim,), "in_norm.beta": (dim,)}
    sizes = {"in_proj": (dim, dim), "out1": (dim // 2, dim), "out2": (dim // 4, dim // 2), "out3": (2, dim // 4)}
    for name, shape in sizes.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {f"predictors.{stage}.{name}": shape for stage in range(stages) for name, shape in shapes.items()}


def random_predictors(seed, dim, stages=3):
    """Weights of predictors, such that scores differ from token to token."""
    random = np.random.RandomState(seed)
    return {
        name: random.standard_normal(shape) * (2 / math.sqrt(shape[1]) if len(shape) == 2 else 0.25)
        + name.endswith("gamma")
        for name, shape in predictor_shapes(dim, stages).items()
    }


def predict(weights, stage, tokens, decision):
    """Log probabilities [N, 2] to keep and to drop patch tokens [N, dim], of which `decision` [N] has kept some.

    Where none is kept, what they have in common is 0.
    """

    def dense(name, x):
        return x @ weights[f"predictors.{stage}.{name}.weight"].T + weights[f"predictors.{stage}.{name}.bias"]

    scale, shift = (weights[f"predictors.{stage}.in_norm.{name}"] for name in ("weight", "bias"))
    u = reference.gelu(dense("in_proj", reference.norm(tokens, scale, shift, 1e-5)), "erf")
    half = u.shape[1] // 2
    everywhere = (decision[:, None] * u[:, half:]).sum(0) / max(decision.sum(), 1)
    v = np.concatenate([u[:, :half], np.broadcast_to(everywhere, (len(u), half))], axis=1)
    return log_softmax(dense("out3", reference.gelu(dense("out2", reference.gelu(dense("out1", v), "erf")), "erf")))


def softmax_of_kept(products, decision, eps=1e-6):
    """Attention weights of products [t, t], over the keys that `decision` [t] keeps and each row's own.

    The largest product is sought among those keys alone, so a row with distant dropped keys loses nothing; what
    exceeds it counts as it.
    """
    mask = np.where(np.eye(len(decision)) == 1, 1, decision[None, :])
    largest = np.where(mask > 0.5, products, -np.inf).max(1, keepdims=True)
    exponents = np.exp(np.minimum(products - largest, 0)) * mask
    return (exponents + eps / len(decision)) / (exponents.sum(1, keepdims=True) + eps)


def masked_pass(
    weights, images, spec, noise, heads=4, patch=4, divisor=1, act="erf", weigh=softmax_of_kept, around=None, **stem
):
    """The training's pass: every token in every block, dropped ones seen by themselves alone.

    `noise` is Gumbel noise [B, N, 2] for each stage in turn: a token is kept where score + noise is largest for keep,
    and it was kept before. `stem` (training, mask) goes to an LV-ViT's. With `around`, the `Outcome` of weights nearby,
    its choices stay and move with their soft probabilities: derivatives are then the straight-through estimator's.
    """
    weights, drops = reference_lvvit.timm_names(weights), reference.read_spec(spec)[0]
    rows = []
    for number, tokens in enumerate(embed(weights, images, patch, **stem)):
        matrix = np.stack([vector for _, vector in tokens])
        decision, scores, decisions = np.ones(len(tokens) - 1), {}, {}
        for i in range(reference.depth_of(weights)):
            if i + 1 in drops:
                drawn = noise[len(scores)][number]
                scores[i + 1] = predict(weights, len(scores), matrix[1:], decision)
                chosen = around.scores[i + 1][number] if around else scores[i + 1]
                moved = reference.softmax(scores[i + 1] + drawn) - reference.softmax(chosen + drawn)
                keep, drop = (chosen + drawn).T
                decision = decision * ((keep >= drop) + moved[:, 0])
                decisions[i + 1] = decision
            seen = np.concatenate([[1.0], decision])
            matrix = run_block(weights, i, matrix, heads, divisor, act, lambda p, seen=seen: weigh(p, seen))
        rows.append((matrix, np.arange(len(decision)), scores, decisions, {}))
    return outcome(weights, rows)


def topk_pass(weights, images, spec, heads=4, patch=4, divisor=1, act="erf", **stem):
    """Evaluation's pass: before a block of `spec` the tokens likeliest kept stay, of equal ones the first."""
    weights, drops = reference_lvvit.timm_names(weights), reference.read_spec(spec)[0]
    rows = []
    for tokens in embed(weights, images, patch, **stem):
        matrix = np.stack([vector for _, vector in tokens])
        places, scores, kept = np.arange(len(matrix) - 1), {}, {}
        counts = keep_counts(spec, len(places))
        for i in range(reference.depth_of(weights)):
            if i + 1 in drops:
                scores[i + 1] = predict(weights, len(scores), matrix[1:], np.ones(len(places)))
                stay = np.sort(np.argsort(-scores[i + 1][:, 0], kind="stable")[: counts[i + 1]])
                matrix, places = matrix[[0, *(stay + 1)]], places[stay]
                kept[i + 1] = places
            matrix = run_block(weights, i, matrix, heads, divisor, act)
        rows.append((matrix, places, scores, {}, kept))
    return outcome(weights, rows)


def embed(weights, images, patch, **stem):
    if "patch_embed.conv1.weight" in weights:
        return reference_lvvit.embed(weights, images, patch, **stem)
    return [reference.embed(weights, image, patch) for image in images.astype(np.float64)]


def epsilon_of(weights):
    return reference_lvvit.EPS if "patch_embed.conv1.weight" in weights else 1e-6


def run_block(weights, i, matrix, heads, divisor, act, weigh=reference.softmax):
    block, eps = reference.block_of(weights, i), epsilon_of(weights)
    normed = reference.norm(matrix, block["norm1.weight"], block["norm1.bias"], eps)
    matrix = matrix + reference.attention(block, normed, heads, weigh)[0] / divisor
    return matrix + reference.mlp(block, matrix, act, eps) / divisor


def keep_counts(spec, patches):
    """{block: tokens kept}: the floor of the share of the original number, exactly."""
    counts, share, whole = {}, 1, 1
    for block, (percent, *_) in sorted(reference.read_spec(spec)[0].items()):
        share, whole = share * (100 - percent), whole * 100
        counts[block] = patches * share // whole
    return counts


def outcome(weights, rows):
    vectors = np.stack([row[0] for row in rows])
    normed = reference.norm(vectors, weights["norm.weight"], weights["norm.bias"], epsilon_of(weights))
    cls = logits = normed[:, 0] @ weights["head.weight"].T + weights["head.bias"]
    aux = None
    if "aux_head.weight" in weights:
        aux = normed[:, 1:] @ weights["aux_head.weight"].T + weights["aux_head.bias"]
        logits = cls + 0.5 * aux.max(1)
    by_block = ({block: np.stack([row[i][block] for row in rows]) for block in rows[0][i]} for i in (2, 3, 4))
    return Outcome(logits, cls, normed[:, 1:], aux, np.stack([row[1] for row in rows]), *by_block)


def ratio_loss(decisions, shares):
    """Mean over stages and images of (share of tokens kept - share aimed at)**2; decisions [B, N] a stage."""
    return np.mean([((decision.mean(1) - share) ** 2).mean() for decision, share in zip(decisions, shares)])


def divergence(teacher, student):
    """KL(teacher || student) of logits [..., classes], summed over classes, mean over the rest."""
    told, said = log_softmax(teacher), log_softmax(student)
    return (np.exp(told) * (told - said)).sum(-1).mean()


def token_loss(teacher, student, decision, of_logits=False):
    """Over the tokens that `decision` [B, N] keeps: the mean square of the difference, or of logits the divergence."""
    chosen = decision > 0.5
    if not chosen.any():
        return 0.0
    teacher, student = teacher[chosen], student[chosen]
    return divergence(teacher, student) if of_logits else ((student - teacher) ** 2).mean()


def loss(outcome, teacher, targets, shares, ratio_weight=2.0, distill_weight=0.5, token_weight=0.5):
    """The training's loss of a masked pass against a frozen, dense teacher's `Outcome`; targets [B, classes]."""
    decisions = list(outcome.decisions.values())
    logits = outcome.aux is not None
    pair = (teacher.aux, outcome.aux) if logits else (teacher.features, outcome.features)
    return (
        reference_lvvit.cross_entropy(outcome.cls, targets)
        + ratio_weight * ratio_loss(decisions, shares)
        + distill_weight * divergence(teacher.cls, outcome.cls)
        + token_weight * token_loss(*pair, decisions[-1], logits)
    )

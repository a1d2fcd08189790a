"""SkipViT and EViT in float64 NumPy, written from the papers and independent of src/: what the tests compare with."""

import math
import re

import numpy as np


def random_weights(seed, dim=24, depth=12, patch_dim=48, patches=16, classes=5, hidden=96):
    """Weights of a small ViT under timm's names; large enough that attention differs from token to token."""
    random = np.random.RandomState(seed)
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + patches, dim), "patch_embed.proj.weight": (dim, patch_dim),
              "patch_embed.proj.bias": (dim,), "norm.weight": (dim,), "norm.bias": (dim,),
              "head.weight": (classes, dim), "head.bias": (classes,)}  # fmt: skip
    for i in range(depth):
        for name, shape in (("norm1", (dim,)), ("attn.qkv", (3 * dim, dim)), ("attn.proj", (dim, dim)),
                            ("norm2", (dim,)), ("mlp.fc1", (hidden, dim)), ("mlp.fc2", (dim, hidden))):  # fmt: skip
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    weights = {name: random.standard_normal(shape) * 0.25 for name, shape in shapes.items()}
    for name in weights:
        if "norm" in name and name.endswith("weight"):
            weights[name] += 1
    return weights


def forward(weights, images, spec, heads=4, patch=4, act="erf"):
    """Logits [B, classes], and {block of the drop: original places kept, ascending [B, keep]}."""
    depth = 1 + max(int(m[1]) for m in map(re.compile(r"blocks\.(\d+)\.").match, weights) if m)
    drops, rejoin, fused, ranking = read_spec(spec)
    logits, kept = [], {block: [] for block in drops}
    for image in images.astype(np.float64):
        tokens = embed(weights, image, patch)  # a list of (place, vector); -1 is [CLS]
        waiting, patches, fused_made = {}, len(tokens) - 1, 0
        for i in range(depth):
            block = {n.split(".", 2)[2]: w for n, w in weights.items() if n.startswith(f"blocks.{i}.")}
            if rejoin == i + 1:
                everything = {**dict(tokens), **waiting}
                tokens, waiting = sorted(everything.items()), {}
            matrix = np.stack([vector for _, vector in tokens])
            attended, weights_of_heads = attention(
                block, norm(matrix, block["norm1.weight"], block["norm1.bias"]), heads
            )
            scores = weights_of_heads.mean(0)[0]
            matrix = matrix + attended
            tokens = [(place, row) for (place, _), row in zip(tokens, matrix)]
            if i + 1 in drops:
                present = len(tokens) - 1
                keep = -((-present * (100 - drops[i + 1])) // 100)
                worth = worth_of(
                    ranking, matrix, weights_of_heads, [place for place, _ in tokens], keep, images.shape[2:], patch
                )
                best = sorted(range(1, present + 1), key=lambda j: (-worth[j], j))
                stay, leave = sorted(best[:keep]), sorted(best[keep:])
                kept[i + 1].append(sorted(tokens[j][0] for j in stay))
                if fused and leave:
                    extra = (patches + fused_made, sum(scores[j] * tokens[j][1] for j in leave))
                    fused_made += 1
                    tokens = [tokens[0]] + [tokens[j] for j in stay] + [extra]
                else:
                    waiting.update({tokens[j][0]: tokens[j][1] for j in leave})
                    tokens = [tokens[0]] + [tokens[j] for j in stay]
            matrix = np.stack([vector for _, vector in tokens])
            hidden = norm(matrix, block["norm2.weight"], block["norm2.bias"]) @ block["mlp.fc1.weight"].T
            hidden = gelu(hidden + block["mlp.fc1.bias"], act)
            matrix = matrix + hidden @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
            tokens = [(place, row) for (place, _), row in zip(tokens, matrix)]
        cls = norm(tokens[0][1], weights["norm.weight"], weights["norm.bias"])
        logits.append(cls @ weights["head.weight"].T + weights["head.bias"])
    return np.stack(logits), {block: np.array(rows) for block, rows in kept.items()}


def worth_of(ranking, matrix, heads, places, keep, size, patch):
    """What the tokens are ranked by, [CLS] first; the highest stay. `heads` is attention [heads, from, to]."""
    rows, columns = (side // patch for side in size)
    if ranking == "cls":
        return heads.mean(0)[0]
    if ranking == "lowest":
        return -heads.mean(0)[0]
    if ranking == "norm":
        return np.sqrt((matrix**2).sum(1))
    if ranking == "received":
        return heads.mean((0, 1))
    if ranking == "centre":
        middle = (rows - 1) / 2, (columns - 1) / 2
        return [-math.dist((place // columns, place % columns), middle) for place in places]
    chosen = {math.floor(i * (len(places) - 1) / keep) for i in range(keep)}
    return [float(i - 1 in chosen) for i in range(len(places))]


def read_spec(spec):
    """{block: whole percent dropped}, rejoin block or None, fused, ranking."""
    if spec == "none":
        return {}, None, False, "cls"
    blocks, ratios, ranking, end = re.fullmatch(r"([\d,]+)\(([\d,%]+?)(?:,([a-z]+))?\)\+?(\w*)", spec).groups()
    drops = dict(zip(map(int, blocks.split(",")), (int(r.rstrip("%")) for r in ratios.split(","))))
    return drops, int(end) if end.isdigit() else None, end == "fused", ranking or "cls"


def embed(weights, image, patch):
    kernel = weights["patch_embed.proj.weight"]
    kernel = kernel.reshape(len(kernel), -1)
    rows, columns = image.shape[1] // patch, image.shape[2] // patch
    vectors = [weights["cls_token"][0, 0]]
    for r in range(rows):
        for c in range(columns):
            pixels = image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
            vectors.append(kernel @ pixels.ravel() + weights["patch_embed.proj.bias"])
    return [(i - 1, vector + position) for i, (vector, position) in enumerate(zip(vectors, weights["pos_embed"][0]))]


def norm(x, weight, bias):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def gelu(x, act):
    if act == "erf":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(block, x, heads):
    dim = x.shape[1]
    q, k, v = np.split(x @ block["attn.qkv.weight"].T + block["attn.qkv.bias"], 3, axis=1)
    out, all_weights = np.zeros_like(x), []
    for head in np.split(np.arange(dim), heads):
        logits = q[:, head] @ k[:, head].T / math.sqrt(len(head))
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        out[:, head] = weights @ v[:, head]
        all_weights.append(weights)
    return out @ block["attn.proj.weight"].T + block["attn.proj.bias"], np.stack(all_weights)

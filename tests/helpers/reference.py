"""SkipViT and EViT in float64 NumPy, written from the papers and independent of src/: what the tests compare with."""

import math
import re

import numpy as np


def random_weights(seed, dim=24, depth=12, patch_dim=48, patches=16, classes=5, hidden=96, distilled=False):
    """Weights of a small ViT under timm's names; large enough that attention differs from token to token."""
    random = np.random.RandomState(seed)
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + patches, dim), "patch_embed.proj.weight": (dim, patch_dim),
              "patch_embed.proj.bias": (dim,), "norm.weight": (dim,), "norm.bias": (dim,),
              "head.weight": (classes, dim), "head.bias": (classes,)}  # fmt: skip
    if distilled:
        shapes |= {"pos_embed": (1, 2 + patches, dim), "dist_token": (1, 1, dim),
                   "head_dist.weight": (classes, dim), "head_dist.bias": (classes,)}  # fmt: skip
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


def forward(weights, images, spec, heads=4, patch=4, act="erf", random_scores=(), rows=1, oracle=None):
    """Logits [B, classes], and {block of the drop: original places kept, ascending [B, keep]}.

    `random_scores` are what random drops rank by, [B, tokens] each, in the order of the drops; [CLS] scores are the
    mean attention of the first `rows` tokens. `oracle` is {block of the drop: its scores [B, patches]}, by which the
    ranking of that name ranks.
    """
    drops, _ = read_spec(spec)
    logits, kept = [], {block: [] for block in sorted(drops)}
    for number, image in enumerate(images.astype(np.float64)):
        drawn = [scores[number] for scores in random_scores]
        told = {block: scores[number] for block, scores in (oracle or {}).items()}
        result, stayed, _ = forward_one(weights, image, spec, heads, patch, act, drawn, rows, told)
        logits.append(result)
        for block, places in stayed.items():
            kept[block].append(places)
    return np.stack(logits), {block: np.array(rows) for block, rows in kept.items()}


def oracle_scores(weights, images, heads=4, patch=4, act="erf"):
    """The [CLS] scores of the patches in every block of a dense network, {block: [B, patches]}."""
    seen = [forward_one(weights, image, "none", heads, patch, act, (), 1, {})[2] for image in images]
    return {block: np.stack([scores[block] for scores in seen]) for block in seen[0]}


def forward_one(weights, image, spec, heads, patch, act, drawn, rows, oracle):
    """Logits of one image, the places that each drop keeps, and the [CLS] scores of each block's patches."""
    grid = image.shape[1] // patch, image.shape[2] // patch
    tokens = embed(weights, image, patch)
    tokens, kept, seen = walk(weights, tokens, spec, grid, heads, act, drawn, rows, oracle)
    normed = norm(np.stack([vector for _, vector in tokens]), weights["norm.weight"], weights["norm.bias"])
    read = normed[0] if "cls_token" in weights else normed.mean(0)
    logits = read @ weights["head.weight"].T + weights["head.bias"]
    if "dist_token" in weights:
        logits = (logits + normed[1] @ weights["head_dist.weight"].T + weights["head_dist.bias"]) / 2
    return logits, kept, seen


def walk(weights, tokens, spec, grid, heads, act="erf", drawn=(), rows=1, oracle=None, eps=1e-6, divisor=1):
    """Tokens after the last block, the places that each drop keeps, and the [CLS] scores of each block's patches.

    `tokens` are (place, vector); below 0 is the prefix, from the number of patches on are fused ones. `divisor` is
    what the branches are divided by.
    """
    depth = depth_of(weights)
    drops, returns = read_spec(spec)
    waiting, kept, drawn, seen = {}, {}, iter(drawn), {}
    patches = sum(place >= 0 for place, _ in tokens)

    def drop(block, tokens, weights_of_heads):
        ratio, _, ranking, fused = drops[block]
        here = [j for j, (place, _) in enumerate(tokens) if place >= 0]
        keep = -((-len(here) * (100 - ratio)) // 100)
        places, matrix = [place for place, _ in tokens], np.stack([vector for _, vector in tokens])
        if ranking == "random":
            worth = next(drawn)
        elif ranking == "oracle":  # which knows no fused token: it stays
            worth = [oracle[block][place] if 0 <= place < patches else math.inf for place in places]
        else:
            worth = worth_of(ranking, matrix, weights_of_heads, places, keep, grid, rows)
        best = sorted(here, key=lambda j: (-worth[j], j))
        stay, leave = sorted(best[:keep]), sorted(best[keep:])
        kept[block] = sorted(places[j] for j in stay)
        rest = [token for token in tokens if token[0] < 0] + [tokens[j] for j in stay]
        if not fused:
            waiting.update({tokens[j][0]: tokens[j][1] for j in leave})
        elif leave:
            scores = weights_of_heads.mean(0)[:rows].mean(0)
            rest.append((patches + len(kept) - 1, sum(scores[j] * tokens[j][1] for j in leave)))
        return rest

    for i in range(depth):
        block = block_of(weights, i)
        if i + 1 in returns:
            tokens = sorted({**dict(tokens), **waiting}.items())
            waiting.clear()
        if i + 1 in drops and drops[i + 1][1]:
            tokens = drop(i + 1, tokens, None)
        matrix = np.stack([vector for _, vector in tokens])
        normed = norm(matrix, block["norm1.weight"], block["norm1.bias"], eps)
        attended, weights_of_heads = attention(block, normed, heads)
        tokens = [(place, row) for (place, _), row in zip(tokens, matrix + attended / divisor)]
        prefix = sum(place < 0 for place, _ in tokens)
        seen[i + 1] = weights_of_heads.mean(0)[:rows].mean(0)[prefix:]
        if i + 1 in drops and not drops[i + 1][1]:
            tokens = drop(i + 1, tokens, weights_of_heads)
        matrix = np.stack([vector for _, vector in tokens])
        matrix = matrix + mlp(block, matrix, act, eps) / divisor
        tokens = [(place, row) for (place, _), row in zip(tokens, matrix)]
    return tokens, kept, seen


def depth_of(weights):
    return 1 + max(int(m[1]) for m in map(re.compile(r"blocks\.(\d+)\.").match, weights) if m)


def block_of(weights, i):
    return {name.split(".", 2)[2]: weight for name, weight in weights.items() if name.startswith(f"blocks.{i}.")}


def worth_of(ranking, matrix, heads, places, keep, grid, score_rows):
    """What the tokens are ranked by; the highest stay. `heads` is attention [heads, from, to]."""
    rows, columns = grid
    if ranking in ("cls", "lowest"):
        return heads.mean(0)[:score_rows].mean(0) * (1 if ranking == "cls" else -1)
    if ranking == "norm":
        return np.sqrt((matrix**2).sum(1))
    if ranking == "received":
        return heads.mean((0, 1))
    if ranking == "centre":
        middle = (rows - 1) / 2, (columns - 1) / 2
        return [-math.dist((place // columns, place % columns), middle) for place in places]
    prefix = sum(place < 0 for place in places)
    chosen = {math.floor(i * (len(places) - prefix) / keep) for i in range(keep)}
    return [float(i - prefix in chosen) for i in range(len(places))]


def read_spec(spec):
    """{block: (whole percent dropped, whether before attention, ranking, fused)}; blocks before which all return."""
    drops, returns = {}, set()
    for route in [] if spec == "none" else spec.split(";"):
        before, blocks, ratios, ranking, end = re.fullmatch(
            r"(<?)([\d,.]+)\(([\d,%]+?)(?:,([a-z]+))?\)\+?(\w*)", route
        ).groups()
        if end == "next":
            first, last = map(int, blocks.split(".."))
            blocks, ratios = range(first, last + 1), [ratios] * (last + 1 - first)
            returns |= {block + 1 for block in blocks}
        else:
            blocks, ratios = map(int, blocks.split(",")), ratios.split(",")
            returns |= {int(end)} if end.isdigit() else set()
        for block, ratio in zip(blocks, ratios):
            drops[block] = int(ratio.rstrip("%")), before == "<", ranking or "cls", end == "fused"
    return drops, returns


def embed(weights, image, patch):
    kernel = weights["patch_embed.proj.weight"]
    kernel = kernel.reshape(len(kernel), -1)
    rows, columns = image.shape[1] // patch, image.shape[2] // patch
    vectors = [weights[name][0, 0] for name in ("cls_token", "dist_token") if name in weights]
    prefix = len(vectors)
    for r in range(rows):
        for c in range(columns):
            pixels = image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
            vectors.append(kernel @ pixels.ravel() + weights["patch_embed.proj.bias"])
    return [
        (i - prefix, vector + position) for i, (vector, position) in enumerate(zip(vectors, weights["pos_embed"][0]))
    ]


def norm(x, weight, bias, eps=1e-6):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps) * weight + bias


def gelu(x, act):
    if act == "erf":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def mlp(block, x, act, eps=1e-6):
    hidden = norm(x, block["norm2.weight"], block["norm2.bias"], eps) @ block["mlp.fc1.weight"].T
    return gelu(hidden + block["mlp.fc1.bias"], act) @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]


def softmax(x, axis=-1):
    exponents = np.exp(x - x.max(axis, keepdims=True))
    return exponents / exponents.sum(axis, keepdims=True)


def attention(block, x, heads, weigh=softmax):
    """Attention of one image [t, C] and its weights [heads, t, t]; `weigh` makes weights of scaled products [t, t]."""
    q, k, v = np.split(x @ block["attn.qkv.weight"].T + block.get("attn.qkv.bias", 0), 3, axis=1)
    out, all_weights = np.zeros_like(x), []
    for head in np.split(np.arange(x.shape[1]), heads):
        weights = weigh(q[:, head] @ k[:, head].T / math.sqrt(len(head)))
        out[:, head] = weights @ v[:, head]
        all_weights.append(weights)
    return out @ block["attn.proj.weight"].T + block["attn.proj.bias"], np.stack(all_weights)

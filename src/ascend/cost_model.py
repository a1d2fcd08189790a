"""A cost model of one training step on Ascend 910A, on paper: an estimate, never compared with the hardware.

Every operator takes the longer of two times: its multiplications at the cube unit's rate, with each dimension padded
to 16, and its bytes at the memory's. Half-precision batched products whose last dimensions are not multiples of 16
are re-laid out besides. Nothing overlaps, and nothing waits for the host or for data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from src import markdown
from src.config import Config
from src.errors import UserError
from src.schedules import Geometry, Plan, parse, resolve
from src.schedules.paper import TABLE1

CUBE = 16
MACS_PER_S = 128e12  # 256 TFLOPS float16: Ascend 910, Hot Chips 31 (2019)
BYTES_PER_S = 1.2e12  # HBM2, the same source
CUBE_SHARE = 0.6  # assumed: what matrix products of this size reach of the peak
MEMORY_SHARE = 0.7  # assumed: what streams reach of the peak
BACKWARD = 2.0  # a product's two gradients; and about what elementwise gradients move

ASSUMPTIONS = (
    f"Assumed: {MACS_PER_S * 2 / 1e12:.0f} TFLOPS float16 of which products reach {100 * CUBE_SHARE:.0f}%,"
    f" {BYTES_PER_S / 1e12:.1f} TB/s of which streams reach {100 * MEMORY_SHARE:.0f}%; backward takes {BACKWARD:g}"
    " times the forward; softmax and norms in float32, all else in float16; AdamW in float32."
    " An estimate: not run on a 910A."
)


@dataclass(frozen=True)
class Step:
    """Seconds of a training step by what they are spent on."""

    products: float
    attention: float
    elementwise: float
    moves: float
    optimizer: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.products + self.attention + self.elementwise + self.moves + self.optimizer


def estimate(plan: Plan, geometry: Geometry, batch: int) -> Step:
    """Estimate the time of one training step of `batch` images."""
    dim, hidden, heads = geometry.embed_dim, geometry.mlp_dim, geometry.num_heads
    patches = _product(batch * geometry.num_patches, geometry.patch_dim, dim)
    products = patches + _product(batch, dim, geometry.num_classes)
    attention = elementwise = moves = 0.0
    for tokens_in, tokens_out in zip(plan.tokens_in, plan.tokens_out):
        rows, mlp_rows = batch * tokens_in, batch * tokens_out
        products += _product(rows, dim, 3 * dim) + _product(rows, dim, dim)
        products += _product(mlp_rows, dim, hidden) + _product(mlp_rows, hidden, dim)
        attention += _attention(batch * heads, tokens_in, dim // heads)
        # norm (float16 in and out, float32 inside), residual sum: 3 + 3 half-precision streams of 2 bytes
        elementwise += _stream((rows + mlp_rows) * dim * (14 + 6))
        elementwise += _stream(rows * 4 * dim * 4 + mlp_rows * hidden * 4 * 4)  # transposes; GELU in four passes
    for tokens in (t for t, keep in zip(plan.tokens_in, plan.kept) if keep):
        moves += _stream(batch * tokens * tokens * 4 * 4)  # every pair of scores, in four passes
        moves += _stream(batch * tokens * dim * (4 + 4) * 2)  # split and rejoin, gathered in float32
    return Step(
        products * (1 + BACKWARD),
        attention * (1 + BACKWARD),
        elementwise * (1 + BACKWARD),
        moves * 2,
        _stream(
            geometry.parameters * 4 * 8
        ),  # weight, two moments and gradient read, three written, and a float16 copy
    )


def table(config: Config, specs: Sequence[str]) -> str:
    """Return the predicted gain of schedules, as configured and with tokens aligned to 16, as Markdown.

    Raises:
        UserError: The configuration trains in float32.
    """
    if config.train.amp_level == "O0":
        raise UserError("--estimate is of float16, and train.amp_level is O0; add train.amp_level=O2")
    configured = Geometry.from_config(config.model)

    def of(spec: str, align: int) -> tuple[Plan, Step]:
        geometry = replace(configured, align_tokens=align)
        plan = resolve(parse(spec), geometry)
        return plan, estimate(plan, geometry, config.data.batch_size)

    _, dense = of("none", configured.align_tokens)
    rows = []
    for spec in specs:
        (plan, step), (aligned_plan, aligned) = of(spec, configured.align_tokens), of(spec, CUBE)
        published = TABLE1[spec].img_s / TABLE1["none"].img_s - 1 if spec in TABLE1 else None
        rows.append(
            [
                f"`{spec}`",
                _tokens(plan),
                f"{1000 * step.total:.1f}",
                f"{100 * (dense.total / step.total - 1):+.1f}%",
                f"{100 * plan.ideal_gain:+.1f}%",
                "" if published is None else f"{100 * published:+.1f}%",
                _tokens(aligned_plan),
                f"{100 * aligned_plan.ideal_gain:+.1f}%",
                f"{100 * (dense.total / aligned.total - 1):+.1f}%",
            ]
        )
    header = ["schedule", "tokens", "step ms", "gain", "ideal", "paper's", "tokens aligned to 16", "ideal", "gain"]
    parts = ", ".join(
        f"{name} {100 * getattr(dense, name) / dense.total:.0f}%"
        for name in ("products", "attention", "elementwise", "optimizer")
    )
    return (
        f"{markdown.table(header, rows)}\n{config.model.name}, batch {config.data.batch_size}. The dense step: {parts}."
        f" {ASSUMPTIONS}\n"
    )


def _attention(batch: int, tokens: int, dim: int) -> float:
    """Estimate scores, softmax and weighted values of one layer's heads."""
    products = _product(tokens, dim, tokens, batch) + _product(tokens, tokens, dim, batch)
    softmax = _stream(batch * tokens * tokens * (2 + 4 + 4 + 4 + 4 + 2))  # to float32, softmax, back
    if tokens % CUBE:
        softmax += _stream(batch * 2 * 2 * (tokens * tokens + 3 * tokens * dim))  # padded copies
    return products + softmax


def _product(rows: int, inner: int, columns: int, batch: int = 1) -> float:
    macs = batch * _pad(rows) * _pad(inner) * _pad(columns)
    moved = 2 * batch * (rows * inner + inner * columns + rows * columns)
    return max(macs / (MACS_PER_S * CUBE_SHARE), _stream(moved))


def _stream(moved: float) -> float:
    return moved / (BYTES_PER_S * MEMORY_SHARE)


def _pad(size: int) -> int:
    return -(-size // CUBE) * CUBE


def _tokens(plan: Plan) -> str:
    return " ".join(map(str, dict.fromkeys(plan.tokens_out)))

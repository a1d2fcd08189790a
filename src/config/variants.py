"""The models of the registry by their sizes, which need no network to be known.

ViT: arXiv 2010.11929, 2012.12877. LV-ViT: arXiv 2104.10858.
"""

import difflib
from collections.abc import Mapping
from typing import Any, Union

from src.errors import UserError

DEFAULTS: Mapping[str, Union[int, float, str]] = {
    "backbone": "vit", "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 4.0,
    "distilled": False, "residual_divisor": 1.0,
}  # fmt: skip
_TI, _S, _B = ({"embed_dim": 64 * heads, "num_heads": heads} for heads in (3, 6, 12))
_L = {"embed_dim": 1024, "num_heads": 16, "depth": 24}
_LV: Mapping[str, Union[int, float, str]] = {"backbone": "lvvit", "mlp_ratio": 3.0}
VARIANTS: Mapping[str, Mapping[str, Union[int, float, str]]] = {
    "skipvit_ti_16_224": _TI,
    "skipvit_s_16_224": _S,
    "skipvit_b_16_224": _B,
    "skipvit_l_16_224": _L,
    "skipvit_b_32_224": {**_B, "patch_size": 32},
    "skipvit_l_32_224": {**_L, "patch_size": 32},
    "skipvit_ti_distilled_16_224": {**_TI, "distilled": True},
    "skipvit_s_distilled_16_224": {**_S, "distilled": True},
    "skipvit_b_distilled_16_224": {**_B, "distilled": True},
    "lvvit_ti_16_224": {**_LV, "embed_dim": 240, "num_heads": 4},
    "lvvit_s_16_224": {**_LV, "depth": 16, "residual_divisor": 2.0},
    "lvvit_m_16_224": {**_LV, "embed_dim": 512, "num_heads": 8, "depth": 20, "residual_divisor": 2.0},
}

# what backbones differ in beside their sizes, for whoever builds them or writes them to a file
NORM_EPSILON = {"vit": 1e-6, "lvvit": 1e-5}  # of every LayerNorm, as timm's ViT and LV-ViT's code
PREDICTOR_EPSILON = 1e-5  # of a predictor's LayerNorm, as PyTorch's
BATCH_NORM_EPSILON = 1e-5  # of LV-ViT's stem, as PyTorch's
TOKENS_SHARE = 0.5  # of the patch tokens' largest logits in those of LV-ViT


def sizes_of(name: str) -> dict[str, Any]:
    """Return the sizes of a model of the registry, by their keyword arguments.

    Raises:
        UserError: There is no such model.
    """
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(VARIANTS)}"
        raise UserError(f"model.name {name!r} is unknown; {hint}")
    return {**DEFAULTS, **VARIANTS[name]}

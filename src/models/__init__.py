"""Models; importing this package registers them with MindCV."""

from src.models.build import build
from src.models.lvvit import LVViT
from src.models.registry import from_checkpoint, from_config, with_weights
from src.models.trace import TokenTracer, Trace, trace, trace_tokens
from src.models.vit import RandomInputs, SkipViT

__all__ = [
    "LVViT",
    "RandomInputs",
    "SkipViT",
    "TokenTracer",
    "Trace",
    "build",
    "from_checkpoint",
    "from_config",
    "trace",
    "trace_tokens",
    "with_weights",
]

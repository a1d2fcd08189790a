"""Models; importing this package registers `skipvit_{ti,s,b}_16_224` with MindCV."""

import dataclasses
import difflib

from mindcv.models import create_model, list_models
from mindspore import amp

from src.config import ModelConfig
from src.errors import UserError
from src.models.trace import Trace, Tracer, trace, trace_tokens
from src.models.vit import SkipViT

__all__ = ["SkipViT", "Trace", "Tracer", "from_config", "trace", "trace_tokens"]


def from_config(config: ModelConfig, amp_level: str = "O0") -> SkipViT:
    """Build the network that a configuration describes.

    Args:
        amp_level: O0 for float32; O2 for float16 but for norms, softmax, scores and gathers; O3 for float16 norms too.

    Raises:
        UserError: The name is unknown, or sizes or spec are refused.
    """
    names = list_models("skipvit_*")
    if config.name not in names:
        near = difflib.get_close_matches(config.name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
        raise UserError(f"model.name {config.name!r} is unknown; {hint}")
    arguments = dataclasses.asdict(config)
    network = create_model(arguments.pop("name"), **arguments)
    amp.auto_mixed_precision(network, amp_level)  # in place; what it returns only casts the logits to float32
    return network

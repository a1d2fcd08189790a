"""The models in MindCV's registry, and the network of a configuration."""

import dataclasses
from pathlib import Path
from typing import Any, Optional, Union

from mindcv.models import create_model
from mindcv.models.registry import register_model
from mindspore import amp

from src.config import ModelConfig
from src.config.variants import sizes_of
from src.errors import UserError
from src.models.build import build
from src.models.vit import SkipViT
from src.runs import find_checkpoint
from src.weights import Checkpoint, read_checkpoint


def from_config(config: ModelConfig, amp_level: str = "O0", target: Optional[str] = None) -> SkipViT:
    """Build the network of a configuration.

    Args:
        amp_level: O0 for float32; O2 for float16 but for scores and, on CPU, norms and softmax; O3 for float16 norms.
        target: `cpu` or `ascend`, whose kernels the network is written for; by default the device that is set.

    Raises:
        UserError: The name is unknown, or sizes or spec are refused.
    """
    arguments = dataclasses.asdict(config)
    name = arguments.pop("name")
    sizes_of(name)  # refuses an unknown name
    network = create_model(name, target=target, **arguments)
    amp.auto_mixed_precision(network, amp_level)  # in place; what it returns only casts the logits to float32
    return network


def from_checkpoint(path: Union[str, Path], **settings: object) -> SkipViT:
    """Build the network of a checkpoint, in evaluation mode, with its weights.

    Args:
        settings: What is to differ from the checkpoint's configuration, such as `tokens` or `image_size`, as
            configurations call them.

    Raises:
        UserError: The file is missing or damaged, does not say what network it is of (`src.tools.convert` makes one
            that does), or a setting is refused.
    """
    config, found = find_checkpoint(None, str(path), {f"model.{name}": value for name, value in settings.items()})
    checkpoint = read_checkpoint(found)
    return with_weights(checkpoint, checkpoint.fill_in(config).model)


def with_weights(checkpoint: Checkpoint, config: ModelConfig, target: Optional[str] = None) -> SkipViT:
    """Build the network of a configuration, in evaluation mode, with a checkpoint's weights.

    Args:
        target: As of `from_config`.

    Raises:
        UserError: They do not fit each other.
    """
    network = from_config(config, target=target).set_train(False)
    checkpoint.load_into(network)
    return network


@register_model
def skipvit_ti_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build ViT-Ti/16 (DeiT-Ti's sizes); keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_ti_16_224", pretrained, kwargs)


@register_model
def skipvit_s_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build ViT-S/16 (DeiT-S's sizes), the paper's model; keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_s_16_224", pretrained, kwargs)


@register_model
def skipvit_b_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build ViT-B/16 (DeiT-B's sizes); keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_b_16_224", pretrained, kwargs)


@register_model
def skipvit_l_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build ViT-L/16; keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_l_16_224", pretrained, kwargs)


@register_model
def skipvit_b_32_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build ViT-B/32; keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_b_32_224", pretrained, kwargs)


@register_model
def skipvit_l_32_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build ViT-L/32; keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_l_32_224", pretrained, kwargs)


@register_model
def skipvit_ti_distilled_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build DeiT-Ti with its distillation token and head; keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_ti_distilled_16_224", pretrained, kwargs)


@register_model
def skipvit_s_distilled_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build DeiT-S with its distillation token and head; keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_s_distilled_16_224", pretrained, kwargs)


@register_model
def skipvit_b_distilled_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build DeiT-B with its distillation token and head; keyword arguments as `src.models.build.build`."""
    return _build_variant("skipvit_b_distilled_16_224", pretrained, kwargs)


@register_model
def lvvit_ti_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build LV-ViT-Ti (arXiv 2104.10858); keyword arguments as `src.models.build.build`."""
    return _build_variant("lvvit_ti_16_224", pretrained, kwargs)


@register_model
def lvvit_s_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build LV-ViT-S (arXiv 2104.10858); keyword arguments as `src.models.build.build`."""
    return _build_variant("lvvit_s_16_224", pretrained, kwargs)


@register_model
def lvvit_m_16_224(pretrained: bool = False, **kwargs: Any) -> SkipViT:
    """Build LV-ViT-M (arXiv 2104.10858); keyword arguments as `src.models.build.build`."""
    return _build_variant("lvvit_m_16_224", pretrained, kwargs)


def _build_variant(name: str, pretrained: bool, arguments: dict[str, Any]) -> SkipViT:
    if pretrained:
        raise UserError("there are no pretrained weights to download; load a file with src.models.from_checkpoint")
    sizes: dict[str, Any] = dict(sizes_of(name))
    return build(**{**sizes, **arguments})

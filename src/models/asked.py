"""What a training makes of a network whose schedule asks more than the network: an oracle, or predictors that learn."""

from collections.abc import Callable, Mapping
from typing import Optional

from mindspore import nn

from src.config import Config
from src.errors import UserError
from src.models.dynamic import MaskedViT
from src.models.ops import hold_statistics
from src.models.oracle import OracleRanked
from src.models.registry import from_config
from src.models.vit import SkipViT
from src.weights.asked import ORACLE, TEACHER, read_asked
from src.weights.frozen import Frozen

Asks = Callable[[SkipViT], nn.Cell]


def asks_of(config: Config, target: Optional[str] = None) -> Asks:
    """Return `ask` with the files that a configuration names.

    Raises:
        UserError: As of `src.weights.asked.read_asked`.
    """
    return ask(read_asked(config), config.train.amp_level, target)


def ask(asked: Mapping[str, Frozen], amp_level: str, target: Optional[str] = None) -> Asks:
    """Return what makes of a network the cell that is trained under its schedule, over one set of frozen weights.

    Args:
        asked: As of `src.weights.asked.read_asked`.
        amp_level, target: As of `src.models.from_config`.
    """
    frozen = {key: _load(key.rpartition(".")[2], weights, amp_level, target) for key, weights in asked.items()}

    def trained(network: SkipViT) -> nn.Cell:
        dense = {key: own.with_tokens("none", network.geometry.image_size) for key, own in frozen.items()}
        if "oracle" in network.plan.schedule.rankings:
            if ORACLE not in dense:
                raise UserError(f"{network.plan.schedule} ranks by an oracle: name its weights by train.oracle=FILE")
            return OracleRanked(network, dense[ORACLE])
        return MaskedViT(network, dense.get(TEACHER)) if network.plan.masked else network

    return trained


def _load(name: str, weights: Frozen, amp_level: str, target: Optional[str]) -> SkipViT:
    """Build a frozen network; the names of its weights begin with its own."""
    network = from_config(weights.model, amp_level, target)
    weights.file.load_into(network)
    hold_statistics(network)
    for weight in network.get_parameters():
        weight.name = f"{name}.{weight.name}"
        weight.requires_grad = False
    return network

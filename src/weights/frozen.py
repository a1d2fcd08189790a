"""A dense network that is never trained, which another's training asks: an oracle, or a teacher of predictors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from src.config import Config, ModelConfig, dump, with_tokens
from src.errors import UserError
from src.schedules import Geometry, Phase, Plan
from src.schedules.costs import run_costs
from src.weights import convert
from src.weights.load import Checkpoint, NamedFile, digest_of

FROZEN = ("oracle.", "teacher.")  # how the names of their weights begin
TRAINING_PASSES = 3  # a backward pass has twice the multiplications of the forward pass


@dataclass(frozen=True)
class Frozen(NamedFile):
    """What `train.oracle` or `predictor.teacher` names.

    Attributes:
        model: Of the network: dense, for images of the size that the training evaluates.
    """

    model: ModelConfig

    @property
    def geometry(self) -> Geometry:
        return Geometry.from_config(self.model)


def read_frozen(key: str, name: str, config: Config) -> Frozen:
    """Read the file of a frozen network, which has the patches of a configuration's.

    Args:
        key: What names the file in the configuration.

    Raises:
        UserError: The file is missing, unreadable or damaged, or its patches are of another size.
    """
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{key} {path} does not exist; name a file of weights")
    weights = convert.read(path, {}, part="", num_classes=None, in_channels=None)
    model = replace(
        with_tokens(weights.config, "none", config.model.image_size).model, drop_rate=0.0, drop_path_rate=0.0,
        num_classes=weights.geometry.num_classes,
    )  # fmt: skip
    own, wanted = Geometry.from_config(model), Geometry.from_config(config.model)
    if own.patch_size != wanted.patch_size:
        raise UserError(
            f"{key} {path}: its patches are of {own.patch_size} pixels, those of this model of {wanted.patch_size}; it"
            " has to see the same tokens"
        )
    file = Checkpoint(path, weights.arrays, dump(weights.config), weights.classes)
    return Frozen(file, digest_of(path), (f"{own.parameters:,} parameters, frozen",), (), model)


def with_costs(frozen: Frozen, config: Config, forward: Callable[[Phase, Plan], tuple[str, int]]) -> Frozen:
    """Add remarks on what the forward pass costs in each phase that asks the network; no backward pass follows it.

    Args:
        forward: Returns of a phase through what the pass goes and its multiply-accumulates; 0 where nothing is asked.
    """
    return replace(frozen, remarks=(*frozen.remarks, *_costs(config, forward)))


def _costs(config: Config, forward: Callable[[Phase, Plan], tuple[str, int]]) -> Iterator[str]:
    costs = run_costs(config)
    for phase, plan in zip(costs.phases, costs.plans):
        through, macs = forward(phase, plan)
        if macs:
            gain = TRAINING_PASSES * costs.dense / (TRAINING_PASSES * plan.trained_macs + macs) - 1
            yield (
                f"phase {phase.number}, {phase.tokens}: its forward pass{through} takes {macs / 1e9:.3g} GMACs a"
                f" training image; with it the ideal gain is {100 * gain:+.1f}%, without"
                f" {100 * costs.gain_of(plan):+.1f}%"
            )

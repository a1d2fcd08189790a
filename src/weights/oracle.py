"""The network whose attention ranks the tokens of another's training, compared with its configuration."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from src.config import Config, ModelConfig, dump, with_tokens
from src.errors import UserError
from src.schedules import Geometry, parse, plan_phases, resolve
from src.schedules.costs import run_costs
from src.schedules.phases import ranks_by_oracle
from src.weights import convert
from src.weights.load import Checkpoint, NamedFile, digest_of

TRAINING_PASSES = 3  # a backward pass has twice the multiplications of the forward pass


@dataclass(frozen=True)
class Oracle(NamedFile):
    """What `train.oracle` names.

    Attributes:
        model: Of the oracle: dense, for images of the size that the training evaluates.
    """

    model: ModelConfig


def block_of(block: int, depth: int, oracle_depth: int) -> int:
    """Return the oracle's block that is as far through it as a network's block is; both counted from 0."""
    return -(-(block + 1) * oracle_depth // depth) - 1


def check_oracle(config: Config) -> None:
    """Refuse schedules that ask an oracle where none can answer, and an oracle that none asks.

    Raises:
        UserError: There are.
    """
    tokens = config.model.tokens
    if ranks_by_oracle(tokens):
        raise UserError(
            f"model.tokens {tokens}: an oracle ranks in training alone; write it in train.tokens or train.phases, and"
            " model.tokens without the word"
        )
    asked = [phase.tokens for phase in plan_phases(config) if ranks_by_oracle(phase.tokens)]
    if asked and config.train.oracle is None:
        raise UserError(f"{asked[0]} ranks by an oracle: name its weights by train.oracle=FILE")
    if config.train.oracle is not None and not asked:
        raise UserError(
            f"train.oracle {config.train.oracle}: no schedule of the training asks it; write the ranking, as in"
            " train.tokens='6(55%,oracle)+11'"
        )


def read_oracle(config: Config) -> Optional[Oracle]:
    """Read the file that `train.oracle` names; None where that is null.

    Raises:
        UserError: The file is missing, unreadable or damaged, or its network cannot rank for this training.
    """
    if config.train.oracle is None:
        return None
    path = Path(config.train.oracle)
    if not path.is_file():
        raise UserError(f"train.oracle {path} does not exist; name a file of weights")
    weights = convert.read(path, {}, part="", num_classes=None, in_channels=None)
    model = replace(
        with_tokens(weights.config, "none", config.model.image_size).model, drop_rate=0.0, drop_path_rate=0.0,
        num_classes=weights.geometry.num_classes,
    )  # fmt: skip
    oracle, own = Geometry.from_config(model), Geometry.from_config(config.model)
    if oracle.patch_size != own.patch_size:
        raise UserError(
            f"train.oracle {path}: its patches are of {oracle.patch_size} pixels, those of this model of"
            f" {own.patch_size}; it has to rank the same tokens"
        )
    if not oracle.prefix_tokens:
        raise UserError(f"train.oracle {path}: it has no [CLS] token whose attention would rank")
    file = Checkpoint(path, weights.arrays, dump(weights.config), weights.classes)
    return Oracle(file, digest_of(path), tuple(_costs(config, oracle)), (), model)


def _costs(config: Config, oracle: Geometry) -> Iterator[str]:
    """Yield what the oracle's forward pass costs in each phase that asks it; no backward pass follows it."""
    yield f"{oracle.parameters:,} parameters, frozen"
    costs = run_costs(config)
    for phase, plan in zip(costs.phases, costs.plans):
        if not ranks_by_oracle(phase.tokens) or not any(plan.kept):
            continue
        last = max(block for block, keep in enumerate(plan.kept) if keep)
        blocks = block_of(last, len(plan.kept), oracle.depth) + 1
        macs = resolve(parse("none"), replace(oracle.at(phase.image_size), depth=blocks, num_classes=0)).macs
        gain = TRAINING_PASSES * costs.dense / (TRAINING_PASSES * plan.macs + macs) - 1
        yield (
            f"phase {phase.number}, {phase.tokens}: its forward pass through {blocks} of {oracle.depth} blocks takes"
            f" {macs / 1e9:.3g} GMACs a training image; with it the ideal gain is {100 * gain:+.1f}%, without"
            f" {100 * costs.gain_of(plan):+.1f}%"
        )

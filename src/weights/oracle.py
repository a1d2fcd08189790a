"""The network whose attention ranks the tokens of another's training, compared with its configuration."""

from dataclasses import replace

from src.config import Config
from src.errors import UserError
from src.schedules import Geometry, Phase, Plan, parse, plan_phases, resolve
from src.schedules.phases import ranks_by_oracle
from src.weights.frozen import Frozen, read_frozen, with_costs


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


def read_oracle(name: str, config: Config) -> Frozen:
    """Read the file that `train.oracle` names.

    Raises:
        UserError: The file is missing, unreadable or damaged, or its network cannot rank for this training.
    """
    oracle = read_frozen("train.oracle", name, config)
    if not oracle.geometry.prefix_tokens:
        raise UserError(f"train.oracle {name}: it has no [CLS] token whose attention would rank")
    return with_costs(oracle, config, lambda phase, plan: _forward(oracle.geometry, phase, plan))


def _forward(oracle: Geometry, phase: Phase, plan: Plan) -> tuple[str, int]:
    """Return the blocks that an oracle's forward pass goes through in a phase, and its multiply-accumulates."""
    if not ranks_by_oracle(phase.tokens) or not any(plan.kept):
        return "", 0
    last = max(block for block, keep in enumerate(plan.kept) if keep)
    blocks = block_of(last, len(plan.kept), oracle.depth) + 1
    passed = replace(oracle.at(phase.image_size), depth=blocks, num_classes=0)
    return f" through {blocks} of {oracle.depth} blocks", resolve(parse("none"), passed).macs

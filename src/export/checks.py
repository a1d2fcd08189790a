"""What an export refuses before it needs a tensor."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.config import Config
from src.errors import UserError
from src.runtime.environment import memory
from src.schedules import Geometry, Schedule, parse, resolve
from src.schedules.notation import refuse_oracle


def check(config: Config, outputs: Mapping[int, Path], suffix: str, largest: int) -> None:
    """Refuse files that cannot be written, or a network that is none to deploy.

    Args:
        outputs: The file of each batch size; 0 for any number.
        suffix: What a file's name must end in.
        largest: Bytes of weights that one file of the format can hold.

    Raises:
        UserError: Either is so, or a batch does not fit into the memory in which its file is verified.
    """
    for output in outputs.values():
        if output.suffix != suffix:
            raise UserError(f"--output {output} must end in {suffix}")
        if not output.parent.is_dir():
            raise UserError(f"--output {output}: the folder {output.parent} does not exist")
        if not os.access(output.parent, os.W_OK | os.X_OK):
            raise UserError(f"--output {output}: {output.parent}: this user may not write there; name another folder")
    geometry = Geometry.from_config(config.model)
    if 4 * geometry.parameters > largest:
        raise UserError(
            f"{geometry.parameters:,} parameters are more than the {largest // 10**9} GB that one file holds as"
            f" {suffix[1:]}"
        )
    plan = resolve(parse(config.model.tokens), geometry)
    refuse_for_training(plan.schedule)
    images = max(outputs)
    if 4 * images * max(plan.tokens_out) * geometry.mlp_dim > memory():  # the MLP of one block alone, in float32
        raise UserError(f"a batch of {images:,} images takes more than this machine's memory; lower --batch_size")


def refuse_for_training(schedule: Schedule) -> None:
    """Refuse a schedule that is for training alone.

    Raises:
        UserError: It ranks at random, or by an oracle.
    """
    if "random" in schedule.rankings:
        raise UserError(f"{schedule} ranks at random: a control for experiments, not for deployment")
    refuse_oracle(schedule)


def name_outputs(output: Path, batch_sizes: Sequence[int]) -> dict[int, Path]:
    """Return the file of each batch size: a single one is `output`, of several each has its size in its name."""
    if len(batch_sizes) == 1:
        return {batch_sizes[0]: output}
    return {size: output.with_name(f"{output.stem}-b{size or 'any'}{output.suffix}") for size in batch_sizes}

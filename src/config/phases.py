"""What is special about a list of phases in a configuration: keys, what it overrules, and how it is refused."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from src.config.schema import Config, PhaseConfig
from src.errors import short_value

Tree = dict[str, Any]


def phase_key(field: "dataclasses.Field[Any]") -> str:
    """Return the key of a phase's field: `from` is a word of Python's."""
    return field.name.removesuffix("_tokens")


def without_overruled(layers: Sequence[tuple[str, Tree]], overrides: Mapping[str, object]) -> list[tuple[str, Tree]]:
    """Leave out epochs and warm-up below the layer that lists the phases, which says both."""
    names = ("epochs", "warmup_dense_epochs")
    listed = [number for number, (_, tree) in enumerate(layers) if _lists_phases(tree.get("train"))]
    first = len(layers) if overrides.get("train.phases") is not None else max(listed, default=0)
    if overrides.get("train.phases", ...) is None:
        first = 0
    return [
        (source, {**tree, "train": {key: value for key, value in tree["train"].items() if key not in names}})
        if number < first and isinstance(tree.get("train"), dict)
        else (source, tree)
        for number, (source, tree) in enumerate(layers)
    ]


def _lists_phases(train: object) -> bool:
    return isinstance(train, dict) and train.get("phases") is not None


def explain_phase(error: dict[str, Any], key: tuple[str, ...]) -> str:
    """Return what is refused of a phase: key, reason, value."""
    valid = [phase_key(field) for field in dataclasses.fields(PhaseConfig)]
    if not key:
        return f"must be a mapping of {', '.join(valid)}, not {short_value(error['input'])}"
    if error["type"] == "missing":
        return f"{key[0]} is missing"
    if key[0] not in valid:
        near = difflib.get_close_matches(key[0], valid, n=1)
        return f"unknown key {key[0]}; " + (f"did you mean {near[0]}?" if near else f"valid are {', '.join(valid)}")
    return f"{key[0]}: {error['msg'][0].lower() + error['msg'][1:]}, not {short_value(error['input'])}"


def problem_of_phases(config: Config) -> Optional[str]:
    """Return what is wrong with a list of phases, whatever their schedules are."""
    train = config.train
    if train.phases is None:
        return None
    total = sum(phase.epochs for phase in train.phases)
    if train.warmup_dense_epochs:
        return "train.phases and train.warmup_dense_epochs exclude each other; make the warm-up the first phase"
    if total != train.epochs:
        return f"train.phases have {total} epochs together, train.epochs is {train.epochs}; leave train.epochs out"
    for number, phase in enumerate(train.phases, 1):
        given = [
            name for name, value in (("from", phase.from_tokens), ("plateaus", phase.plateaus)) if value is not None
        ]
        if phase.curve is None and given:
            return f"train.phases: phase {number}: {given[0]} belongs to a curve; add curve: cosine or linear"
        if phase.curve is not None and len(given) < 2:
            return f"train.phases: phase {number}: a curve needs both from and plateaus"
        if (phase.plateaus or 0) > phase.epochs:
            return f"train.phases: phase {number}: {phase.plateaus} plateaus do not fit into {phase.epochs} epochs"
    return None

"""The variants of an experiment, and the files of rows that list them. Never imports MindSpore."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from src.config import format_override, read_overrides, read_yaml
from src.errors import UserError, short_value
from src.schedules import parse

LONGEST_NAME = 60


@dataclass(frozen=True)
class Variant:
    """A schedule to train, with the configuration keys that differ from the experiment's.

    Attributes:
        overrides: The keys as `section.key=value`, sorted.
        name: What it is shown as; empty for schedule and overrides. Two names do not make two variants.
    """

    tokens: str
    overrides: tuple[str, ...] = ()
    name: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.name or " ".join([self.tokens, *self.overrides])

    @property
    def folder(self) -> str:
        """The name of the folder of its trainings, one a seed."""
        return re.sub(r"[^a-z0-9]+", "_", str(self).lower()).strip("_")

    @property
    def settings(self) -> dict[str, object]:
        """The values by key, the schedule included."""
        return {**read_overrides(self.overrides), "model.tokens": self.tokens}

    @property
    def has_phases(self) -> bool:
        """Whether it trains under several schedules or sizes, so that no speed is that of its steps."""
        return "train.phases" in self.settings


DENSE = Variant("none")


def read_rows(path: Path) -> dict[str, list[Variant]]:
    """Read the groups of a file of variants, one a row of the table.

    Raises:
        UserError: The file cannot be read, or is no mapping of groups to rows.
    """
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"), f"rows {path}")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"rows {path} cannot be read: {reason}; name a file with --rows FILE") from error
    if not isinstance(tree, dict) or not tree or not all(isinstance(rows, list) and rows for rows in tree.values()):
        raise UserError(f"rows {path}: must be a mapping of groups to lists of rows, like configs/tables/table1.yaml")
    return {str(group): [_read_variant(entry, path) for entry in rows] for group, rows in tree.items()}


def read_specs(path: Path) -> list[str]:
    """Return the schedules of a file of variants, once each, to evaluate one network under them.

    Raises:
        UserError: As `read_rows`; or a row has other settings.
    """
    variants = [variant for rows in read_rows(path).values() for variant in rows]
    for variant in variants:
        if variant.overrides:
            key = variant.overrides[0].partition("=")[0]
            raise UserError(
                f"rows {path}: the row {variant} sets {key}: one network is evaluated, name schedules alone"
            )
    return list(dict.fromkeys(variant.tokens for variant in variants))


def _read_variant(entry: object, path: Path) -> Variant:
    if isinstance(entry, str):
        entry = {"tokens": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("tokens"), str):
        raise UserError(f"rows {path}: a row is a schedule, or a mapping with tokens, not {entry!r}")
    name = entry.get("name", "")
    if "name" in entry and not (isinstance(name, str) and _is_fit(name)):
        longest = f"a text of up to {LONGEST_NAME} characters of one line without | and `"
        raise UserError(f"rows {path}: a row's name is {longest}, not {short_value(name)}")
    others = sorted((str(key), value) for key, value in entry.items() if key not in ("tokens", "name"))
    return Variant(str(parse(entry["tokens"])), tuple(format_override(key, value) for key, value in others), name)


def _is_fit(name: str) -> bool:
    """Tell whether a name can stand in a table."""
    return 0 < len(name) <= LONGEST_NAME and name.isprintable() and not set("|`") & set(name)

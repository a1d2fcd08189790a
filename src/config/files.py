"""Load a configuration from YAML over one level of `base:`, override keys, check it, and write it back."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import yaml
from pydantic import TypeAdapter, ValidationError

from src.config.phases import explain_phase, phase_key, problem_of_phases, without_overruled
from src.config.schema import SECTIONS, Config, PhaseConfig, Role, fields_by_key, flatten, keys_with
from src.config.token_labels import problem_of_token_labels
from src.errors import UserError, short_value

POLICIES = ("autoaug", "autoaugr", "3a", "randaug", "trivialaugwide", "augmix")  # of MindCV 0.3
_POLICY = re.compile(rf"({'|'.join(POLICIES)})(-\S+)?")
LONGEST = 2**18  # characters of a file
DEEPEST = 20  # a list in a section in a file is at 3
MOST_REFUSED = 5  # values that one message names
Overrides = Mapping[str, object]
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A configuration, and for every key that was set the file or "override" that set it; the others are defaults."""

    config: Config
    origins: dict[str, str]

    def left_open(self) -> list[str]:
        """Return section.key=value of what decides about a training and was not set, so that it can be said."""
        values = flatten(self.config)
        return [format_override(name, values[name]) for name in keys_with(Role.STATED) if name not in self.origins]


def load(path: Union[str, Path], overrides: Optional[Overrides] = None) -> Config:
    """Read a YAML file over its `base:`, apply overrides and validate.

    Args:
        overrides: Values by "section.key".

    Raises:
        UserError: A file cannot be read, or a key or value is refused; the message names file or override, key, value
            and the nearest valid name.
    """
    return resolve(path, overrides).config


def resolve(path: Union[str, Path], overrides: Optional[Overrides] = None) -> Resolved:
    """Read a configuration as `load` does, and tell where each value comes from."""
    path = Path(path)
    tree = _read_tree(_read(path), str(path))
    layers = [(str(path), tree)]
    if "base" in tree:
        layers.insert(0, _read_base(path, tree.pop("base")))
    return _merge(layers, overrides or {})


def parse(text: str, source: str, overrides: Optional[Overrides] = None) -> Config:
    """Validate a complete configuration that was found as YAML text in `source`; as `load`, without a base."""
    return _merge([(source, _read_tree(text, source))], overrides or {}).config


def read_overrides(texts: Sequence[str]) -> dict[str, object]:
    """Read `section.key=value` arguments to values by "section.key".

    Raises:
        UserError: One is not of that form, or its value is not YAML.
    """
    overrides = {}
    for text in texts:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise UserError(f"override {text!r} is not of the form section.key=value")
        overrides[name.strip()] = read_yaml(value, f"override {text!r}")
    return overrides


def format_override(name: str, value: object) -> str:
    """Return `section.key=value` as it is given on a command line."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None  # else a newline makes two lines
    plain = yaml.safe_dump(
        _plain(value),
        default_flow_style=True,
        default_style=style,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return f"{name}={plain.removesuffix(chr(10)).removesuffix(chr(10) + '...')}"


class _Loader(yaml.SafeLoader):
    """Load YAML safely, and refuse a key that stands twice, of which YAML itself takes the last.

    Anchors and tags are refused too: no configuration needs them, and nested aliases of a few bytes fill the memory.
    """

    depth = 0  # of nodes in one another

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor or getattr(event, "tag", None):
            problem = "anchors, aliases and tags (& * !) are not allowed; quote the text, or write it out"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=event.start_mark)
        if self.depth == DEEPEST:
            raise yaml.composer.ComposerError(problem="it is nested too deeply", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"{key.value} stands there twice"
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML text that was found in `source`.

    Raises:
        UserError: It is not YAML, long, gives a key twice, or has anchors or tags.
    """
    if len(text) > LONGEST:
        raise UserError(f"{source}: is longer than {LONGEST} characters; no configuration is")
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}{line}: is not valid YAML: {reason}") from error


def dump(config: Config, origins: Optional[Mapping[str, str]] = None) -> str:
    """Write a configuration as YAML that `load` reads back to an equal one.

    Args:
        origins: Where each key that was set comes from: a comment on its line says so, or that it is a default.
    """
    values = flatten(config)
    lines = []
    for section, fields in SECTIONS.items():
        lines.append(f"{section}:")
        for field in dataclasses.fields(fields):
            name = f"{section}.{field.name}"
            line = f"  {field.name}: {format_override(name, values[name]).partition('=')[2]}"
            lines.append(line if origins is None else f"{line}  # {origins.get(name, 'default')}")
    return "".join(f"{line}\n" for line in lines)


def _plain(value: object) -> object:
    """Return lists and mappings of a value, as YAML has them; a phase without what it leaves null."""
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, PhaseConfig):
        given = {phase_key(field): getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(part) for name, part in given.items() if part is not None}
    return value


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}; name one with --config FILE") from error
    except UnicodeDecodeError as error:
        raise UserError(f"config {path} is not UTF-8 text") from error


def _read_tree(text: str, source: str) -> Tree:
    tree = read_yaml(text, source)
    if not isinstance(tree, dict):
        raise UserError(f"{source}: must be a YAML mapping of sections ({', '.join(SECTIONS)})")
    return tree


def _read_base(path: Path, named: object) -> tuple[str, Tree]:
    """Read the file that `base:` names, relative to the file that it stands in."""
    if not isinstance(named, str):
        raise UserError(f"{path}: base: must be the name of a file, not {short_value(named)}")
    base = path.parent / named
    try:
        tree = _read_tree(_read(base), str(base))
    except UserError as error:
        raise UserError(f"{path}: base: {error}") from error
    if "base" in tree:
        raise UserError(f"{path}: base: {base} has a base of its own; one level is all there is")
    return str(base), tree


def _merge(layers: Sequence[tuple[str, Tree]], overrides: Overrides) -> Resolved:
    """Lay trees over one another, later ones on top, then overrides, and validate the result."""
    merged: Tree = {}
    origins: dict[str, str] = {}
    sources: dict[tuple[str, ...], str] = {}
    layers, last = without_overruled(layers, overrides), layers[-1][0]
    for source, tree in layers:
        for section, keys in tree.items():
            if not isinstance(keys, dict):
                sources[(str(section),)] = source
                merged[section] = keys
            elif isinstance(merged.setdefault(section, {}), dict):
                merged[section].update(keys)
                origins.update({f"{section}.{name}": source for name in keys})
                sources.update({(str(section), str(name)): source for name in keys})
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        label = f"override {format_override(name, value)!r}"
        if section not in merged:
            merged[section], sources[(section,)] = {}, label
        if not isinstance(merged[section], dict):
            raise UserError(f"{last}: {section}: must be a section of keys, not {short_value(merged[section])}")
        merged[section][key] = _plain(value)
        sources[(section, key)], origins[name] = label, "override"
    try:
        config = TypeAdapter(Config).validate_python(merged)
    except ValidationError as invalid:
        first = {error["loc"][:2]: dict(error) for error in reversed(invalid.errors())}
        refused = list(reversed(first.values()))
        more = f"; and {len(refused) - MOST_REFUSED} more" if len(refused) > MOST_REFUSED else ""
        lines = [_explain(error, last, sources) for error in refused[:MOST_REFUSED]]
        raise UserError("; ".join(lines) + more) from invalid
    if config.train.phases and "train.epochs" not in origins:
        epochs = sum(phase.epochs for phase in config.train.phases)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=epochs))
        origins["train.epochs"] = "the sum of train.phases"
    given = " ".join(format_override(name, value) for name, value in overrides.items())
    _check_combinations(config, f"{last} with {given}" if given else last)
    return Resolved(config, origins)


def _explain(error: dict[str, Any], source: str, sources: Mapping[tuple[str, ...], str]) -> str:
    """Return one refused value as one line: source, key, reason, value, remedy."""
    location = tuple(str(part) for part in error["loc"])
    name = ".".join(location[:2])
    source = sources.get(location[:2], sources.get(location[:1], source))
    if name == "train.phases" and len(location) > 2:
        return f"{source}: {name}: phase {int(location[2]) + 1}: {explain_phase(error, location[3:4])}"
    if name == "train.phases":
        return f"{source}: {name}: must be a list of 1 to 1000 phases, not {short_value(error['input'])}"
    if error["type"] in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        return f"{source}: unknown key {name}{_suggest(name)}"
    if len(location) == 1:
        return f"{source}: {name}: must be a section of keys, not {short_value(error['input'])}"
    reason = "too few entries" if error["type"] == "missing" else error["msg"][0].lower() + error["msg"][1:]
    return f"{source}: {name}: {reason}, not {short_value(error['input'])}"


def _suggest(name: str) -> str:
    """Suggest the nearest valid name: in the same section, then in any; else list them."""
    section, dot, key = name.partition(".")
    if not dot:
        near = difflib.get_close_matches(section, SECTIONS, n=1)
        return f"; did you mean {near[0]}?" if near else f"; valid are {', '.join(SECTIONS)}"
    valid = [full.partition(".") for full in fields_by_key()]
    siblings = [name for home, _, name in valid if home == section]
    for candidates in (siblings, [name for _, _, name in valid]):
        for close in difflib.get_close_matches(key, candidates, n=1):
            home = section if close in siblings else next(home for home, _, name in valid if name == close)
            return f"; did you mean {home}.{close}?"
    return f"; valid are {', '.join(siblings)}"


def _check_combinations(config: Config, source: str) -> None:
    data = config.data
    policies = [phase.auto_augment for phase in config.train.phases or () if phase.auto_augment != "none"]
    refused = [
        policy for policy in [data.auto_augment, *policies] if policy is not None and not _POLICY.fullmatch(policy)
    ]
    values, defaults = flatten(config), flatten(Config())
    folder_only = keys_with(Role.FOLDER_ONLY)
    problem = None
    if (data.mixup or data.cutmix) and data.batch_size % 2:
        problem = f"data.batch_size {data.batch_size} must be even for data.mixup and data.cutmix"
    elif any(a > b for a, b in (data.scale, data.ratio)):
        problem = f"data.scale {list(data.scale)} and data.ratio {list(data.ratio)} must each be [smallest, largest]"
    elif data.name != "folder" and {data.train_split, data.val_split} - {"train", "test", "all"}:
        problem = f"data.train_split and data.val_split of {data.name} must be train, test or all"
    elif data.name != "folder" and any(values[name] != defaults[name] for name in folder_only):
        problem = f"{', '.join(folder_only)} are of image folders, not of {data.name}"
    elif (data.auto_augment or any(policies)) and data.color_jitter:
        problem = "data.color_jitter and data.auto_augment exclude each other; set one of them to null"
    elif refused:
        problem = f"data.auto_augment {refused[0]!r}: MindCV refuses it: its policies are {', '.join(POLICIES)}"
    else:
        problem = problem_of_phases(config) or problem_of_token_labels(config)
    if problem:
        raise UserError(f"{source}: {problem}")

"""The reference of all keys, docs/configuration.md, generated from the fields."""

import dataclasses
import inspect
from typing import Any

from pydantic import TypeAdapter

from src import markdown
from src.config.files import format_override
from src.config.schema import SECTIONS, Config, PhaseConfig, Role

HEADER = ["key", "type", "default", "meaning", "role"]

INTRODUCTION = """# Configuration

Generated from the fields by `python -m src.tools.configuration`; a test holds it to them. Any key is overridden as
`section.key=value` on the command line. A file says only what differs: from the defaults below, or from the file that
its `base:` names (one level, relative to the file). `python train.py --config FILE --print` shows every key's value
and where it comes from; the run folder keeps them all in `config.yaml`. A key without a role decides what is computed,
and a resumed run keeps it.
"""


def reference() -> str:
    """Return the reference as Markdown: a table a section, with type, default, bounds and meaning of every key."""
    schema = TypeAdapter(Config).json_schema()
    parts = [INTRODUCTION]
    for name, section in SECTIONS.items():
        properties = schema["$defs"][section.__name__]["properties"]
        rows = [_row(name, field, properties[field.name]) for field in dataclasses.fields(section)]
        parts.append(f"## {name}\n\n{inspect.getdoc(section)}\n\n{markdown.table(HEADER, rows)}")
    parts.insert(1 + list(SECTIONS).index("train") + 1, _phases(schema["$defs"][PhaseConfig.__name__]["properties"]))
    roles = [[role.name.lower(), role.value] for role in Role]
    parts.append(f"## Roles\n\n{markdown.table(['role', 'a key with it'], roles)}")
    return "\n".join(parts)


def _phases(properties: dict[str, Any]) -> str:
    """Return the part on the mappings of `train.phases`."""
    rows = [
        [
            f"`{name}`",
            _type(schema),
            "" if field.default is dataclasses.MISSING else "`null`",
            field.metadata["meaning"],
        ]
        for field, (name, schema) in zip(dataclasses.fields(PhaseConfig), properties.items())
    ]
    return f"## train.phases\n\n{inspect.getdoc(PhaseConfig)}\n\n{markdown.table(HEADER[:4], rows)}"


def _row(section: str, field: "dataclasses.Field[Any]", schema: dict[str, Any]) -> list[str]:
    default = format_override(field.name, field.default).partition("=")[2]
    roles = [role.name.lower() for role in Role if role in field.metadata["roles"]]
    meaning = field.metadata["meaning"]
    return [f"`{section}.{field.name}`", _type(schema), f"`{default}`", meaning, ", ".join(roles)]


def _type(schema: dict[str, Any]) -> str:
    """Describe a type and its bounds."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "items" in schema:
        return "list of mappings"
    if schema["type"] == "array":
        return f"list of {len(schema['prefixItems'])}: {_type(schema['prefixItems'][0])}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"),
              ("maximum", "≤"), ("exclusiveMaximum", "<")) if name in schema]  # fmt: skip
    return " ".join([words.get(schema["type"], schema["type"]), " and ".join(bounds)]).strip()

"""The reference of all keys, docs/configuration.md, generated from the fields."""

import dataclasses
import inspect
from typing import Any

from pydantic import TypeAdapter

from src import markdown
from src.config.files import format_override
from src.config.schema import SECTIONS, Config, Role

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
        header = ["key", "type", "default", "meaning", "role"]
        parts.append(f"## {name}\n\n{inspect.getdoc(section)}\n\n{markdown.table(header, rows)}")
    roles = [[role.name.lower(), role.value] for role in Role]
    parts.append(f"## Roles\n\n{markdown.table(['role', 'a key with it'], roles)}")
    return "\n".join(parts)


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
    if schema["type"] == "array":
        return f"list of {len(schema['prefixItems'])}: {_type(schema['prefixItems'][0])}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"),
              ("maximum", "≤"), ("exclusiveMaximum", "<")) if name in schema]  # fmt: skip
    return " ".join([words.get(schema["type"], schema["type"]), " and ".join(bounds)]).strip()

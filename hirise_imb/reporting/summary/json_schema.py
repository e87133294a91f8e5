"""Generates a JSON Schema (draft 2020-12) from typed dictionaries.

The same types check the code that writes a summary, so what is written and what is accepted can't diverge.
"""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

Schema = dict[str, Any]

_SIMPLE: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}


class Rule:
    """JSON Schema keywords that a type can't express, such as `minimum`, for use in `Annotated`."""

    def __init__(self, **keywords: object) -> None:
        """Stores the keywords and their values."""
        self.keywords = keywords


def schema_of(record: type) -> Schema:
    """Returns the schema of a typed dictionary, with those that it refers to in `$defs`.

    In `Annotated`, a string is the title of a value, and a `Rule` adds keywords.

    Raises:
        TypeError: a field has a type without a known schema.
    """
    definitions: dict[str, Schema] = {}
    schema = _object(record, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"$defs": definitions}


def _object(record: type, definitions: dict[str, Schema]) -> Schema:
    hints = get_type_hints(record, include_extras=True)
    return {
        "type": "object",
        "required": [name for name, hint in hints.items() if get_origin(hint) is not NotRequired],
        "properties": {name: _value(hint, definitions) for name, hint in hints.items()},
        "additionalProperties": False,
    }


def _value(hint: Any, definitions: dict[str, Schema]) -> Schema:  # noqa: ANN401
    """Returns the schema of a value; the schema of a typed dictionary is added to the definitions."""
    if hint is Any:
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if is_typeddict(hint):
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", hint.__name__.removesuffix("Record")).lower()
        if name not in definitions:
            # The placeholder keeps the order of definitions, and stops the recursion of a type that contains itself.
            definitions[name] = {}
            definitions[name] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{name}"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return _value(arguments[0], definitions)
    if origin is Annotated:
        schema = _value(arguments[0], definitions)
        for extra in arguments[1:]:
            schema |= {"title": extra} if isinstance(extra, str) else extra.keywords
        return schema
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        parts = [_value(argument, definitions) for argument in arguments]
        if all(set(part) == {"type"} for part in parts):
            return {"type": [part["type"] for part in parts]}
        return {"anyOf": parts}
    if origin is list:
        return {"type": "array", "items": _value(arguments[0], definitions)}
    if origin is dict and arguments[0] is str:
        values = _value(arguments[1], definitions)
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    raise TypeError(f"no schema is known for {hint}")

"""`python -m patchclamp.views.schema` prints the messages' JSON schema, for the TypeScript types.

One document: `$defs` holds every class of `messages/`; the properties `up` and `down` are the
two unions, `snapshot` the saved page. The front end's types are generated from it, and its check
fails when they are stale.
"""

import json
import sys
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from .messages import AnyDown, AnyUp, HelloBody, PackedArray, Snapshot, Up


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of everything that travels between the page and Python.

    What goes up is described as the page may write it (fields with a default are optional), what
    comes down as Python writes it (every field is there).
    """
    _, up = models_json_schema(
        [(part, "validation") for part in Up.__subclasses__()], ref_template="#/$defs/{model}"
    )
    down = TypeAdapter(AnyDown).json_schema(mode="serialization")
    _, rest = models_json_schema(
        [(part, "serialization") for part in (HelloBody, PackedArray, Snapshot)],
        ref_template="#/$defs/{model}",
    )
    kinds = TypeAdapter(AnyUp).json_schema()["oneOf"]
    definitions = up["$defs"] | rest["$defs"] | down["$defs"]
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Messages",
        "description": "What travels between a view in the page and its Python half.",
        "type": "object",
        "additionalProperties": False,
        "required": ["up", "down", "snapshot"],
        "properties": {
            "up": {"$ref": "#/$defs/Up"},
            "down": {"$ref": "#/$defs/Down"},
            "snapshot": {"$ref": "#/$defs/Snapshot"},
        },
        "$defs": {
            "Up": {"title": "Up", "oneOf": kinds},
            "Down": {"title": "Down", "anyOf": down["anyOf"]},
        }
        | {name: _named(part) for name, part in sorted(definitions.items())},
    }


def _named(definition: dict[str, Any]) -> dict[str, Any]:
    """The same with arrays as references, and without titles that would name every number."""
    properties = {}
    for name, given in definition.get("properties", {}).items():
        part = {word: said for word, said in given.items() if word != "title"}
        if given.get("title") == PackedArray.__name__:
            part = {"$ref": "#/$defs/PackedArray", "description": part["description"]}
        properties[name] = part
    return definition | {"properties": properties}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")

"""The JSON Schema of the configuration, which editors complete from.

What it says of a key stands below that key in the source. It is read from there when the schema is asked for: pydantic
would do so whenever the classes are made, which is at every start.
"""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic.json_schema import GenerateJsonSchema

from exporter.config.schema import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema


class _Described(GenerateJsonSchema):
    """Makes JSON Schema in which every key has its meaning."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        for name, meaning in _meanings(schema["cls"]):
            if "$ref" not in made["properties"][name]:  # a section says it itself
                made["properties"][name]["description"] = meaning
        return made


def _meanings(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield a section's keys, each with the text below it."""
    (definition,) = (each for each in ast.parse(inspect.getsource(section)).body if isinstance(each, ast.ClassDef))
    for statement, after in pairwise(definition.body):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)


def json_schema() -> str:
    """Return the JSON Schema of the configuration file, as text that ends with a newline."""
    made = Config.model_json_schema(mode="validation", schema_generator=_Described)
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"

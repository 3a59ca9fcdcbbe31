"""The JSON Schema of a spec, in which every option carries the text that its docstring holds."""

import ast
import inspect
import re
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

_ENTRY = re.compile(r"^(\w+(?:, \w+)*)$")
"""Matches the names in a Parameters section; their texts are indented below them."""


class _Described(GenerateJsonSchema):
    """Adds the description of each option. Pydantic itself would read the sources of all models at every start."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        made: dict[str, Any] = super().model_schema(schema)
        texts = descriptions(schema["cls"])
        for name, field in schema["cls"].model_fields.items():
            option = made.get("properties", {}).get(field.alias or name)
            if option is not None and name in texts:
                option.setdefault("description", texts[name])
        return made


def described_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a model, with descriptions of the options of all its blocks."""
    return model.model_json_schema(by_alias=True, schema_generator=_Described)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the text of each option of a model.

    The text stands below the option or in the Parameters section of the class. A class inherits the texts of its bases
    unless it states its own.
    """
    found = {"kind": inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")}
    for one in reversed(model.__mro__):
        if one is not BaseModel and issubclass(one, BaseModel):
            found.update(_parameters(one))
            found.update(_below(one))
    return found


def _parameters(model: type[BaseModel]) -> dict[str, str]:
    lines = inspect.cleandoc(model.__dict__.get("__doc__") or "").splitlines()
    if "Parameters" not in lines:
        return {}
    texts: dict[str, list[str]] = {}
    names: list[str] = []
    for line in lines[lines.index("Parameters") + 2 :]:
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
        elif line and not line.startswith(" "):  # the section has ended
            break
        for name in names if not entry else ():
            texts.setdefault(name, []).append(line.strip())
    return {name: _joined(" ".join(text)) for name, text in texts.items()}


def _below(model: type[BaseModel]) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    except (OSError, TypeError, SyntaxError):  # without a source file there are no docstrings below options
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
            found[field.target.id] = _joined(text.value.value)  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _joined(text: str) -> str:
    return " ".join(text.replace("``", "`").split())

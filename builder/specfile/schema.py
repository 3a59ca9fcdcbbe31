"""The JSON Schema of a spec, in which every option carries its text, unit, default and an example."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from ruamel.yaml import YAML

_ENTRY = re.compile(r"^(\w+(?:, \w+)*)$")
"""Matches the names in a Parameters section; their texts are indented below them."""


UNIT: Final = "x-unit"
"""Keyword of an option's unit, which JSON Schema itself has no word for."""

UNITS: Final = {
    "mm": "mm", "days": "days", "years": "years", "mib": "MiB", "mb": "MB", "bytes": "bytes", "seconds": "s",
    "percent": "%", "hu": "HU", "degrees": "degrees", "ml": "mL", "gib": "GiB", "minutes": "min", "kg": "kg",
}  # fmt: skip
"""Units by the last part of an option's name."""


class _Described(GenerateJsonSchema):
    """Adds what each option says. Pydantic itself would read the sources of all models at every start."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        made: dict[str, Any] = super().model_schema(schema)
        texts = descriptions(schema["cls"])
        for name, field in schema["cls"].model_fields.items():
            option = made.get("properties", {}).get(field.alias or name)
            if option is None:
                continue
            if name in texts:
                option.setdefault("description", texts[name])
            if field.default_factory is not None and not field.is_required() and "default" not in option:
                option["default"] = self.encode_default(field.get_default(call_default_factory=True))
            unit = UNITS.get(name.rpartition("_")[2])
            if unit:
                option[UNIT] = unit
            examples = list(_examples(f"{schema['cls'].__name__}.{field.alias or name}", option))
            if examples:
                option.setdefault("examples", examples)
        return made


def _examples(name: str, option: Mapping[str, Any]) -> Iterator[Any]:
    """Yield an example of an option: one that is written down, else what its type or default gives away."""
    if name in _written():
        yield _written()[name]
        return
    kinds = [option, *option.get("anyOf", ()), *option.get("oneOf", ())]
    default = option.get("default")
    for kind in kinds:
        values = [kind["const"]] if "const" in kind else kind.get("enum", ())
        values = [True, False] if kind.get("type") == "boolean" else values
        others = [value for value in values if value != default]
        if values:
            yield others[0] if others else values[0]
            return
    if default not in (None, "", [], {}):
        yield default


@cache
def _written() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(Path(__file__).with_name("examples.yaml").read_text(encoding="utf-8"))
    return found


def described_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a model, with text, unit, default and example of the options of all its blocks."""
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

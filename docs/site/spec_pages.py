"""The reference of the spec, generated from its JSON Schema: a page for each block, a row for each option."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from builder.spec import DatasetSpec
from builder.specfile.schema import UNITS, described_schema

HEAD = "| option | what it says | type | unit | default | example |\n|---|---|---|---|---|---|"


def pages() -> Iterator[tuple[str, str]]:
    """Yield the place and text of each page."""
    schema, homes = _schema(), _homes()
    rows = [_row(name, one, "") for name, one in schema["properties"].items()]
    links = [
        f"* [`{block}`]({block}.md): {_sentence(schema['properties'][block])}" for block in sorted(set(homes.values()))
    ]
    intro = (
        "# All options of a spec\n\nThis reference is generated from the models that read a spec; "
        "[The spec](../spec.md) says what the blocks are for. `builder schema` prints the same as a JSON Schema.\n\n"
    )
    yield "spec/index.md", intro + "\n".join([HEAD, *rows, "", "## Blocks", "", *links, ""])
    for block in sorted(set(homes.values())):
        text = [
            f"# {block} {{: #block }}",
            "",
            _sentence(schema["properties"][block]),
            "",
            _shape(schema["properties"][block]),
            "",
        ]
        for name in [name for name, home in homes.items() if home == block]:
            text += [f"## {name}", "", _about(schema["$defs"][name]), "", HEAD]
            properties = schema["$defs"][name].get("properties", {})
            text += [*(_row(option, one, name) for option, one in properties.items()), ""]
        yield f"spec/{block}.md", "\n".join(text)


@cache
def _schema() -> dict[str, Any]:
    return described_schema(DatasetSpec)


@cache
def _homes() -> dict[str, str]:
    """Return the block of the spec that each model is described under: the first that leads to it."""
    found: dict[str, str] = {}

    def walk(node: Any, block: str) -> None:
        for name in _named(node):
            if name not in found:
                found[name] = block
                walk(_schema()["$defs"][name], block)

    for block, node in _schema()["properties"].items():
        walk(node, block)
    return found


def _named(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for name, below in node.items():
            if name != "discriminator":
                yield from _named(below)
    elif isinstance(node, list):
        for below in node:
            yield from _named(below)


def _row(option: str, node: Mapping[str, Any], model: str) -> str:
    default = "" if "default" not in node else "none" if node["default"] is None else _code(node["default"])
    required = option in (_schema()["$defs"][model] if model else _schema()).get("required", ())
    example = node["examples"][0] if node.get("examples") else None
    cells = (
        f"`{option}`",
        node.get("description", ""),
        _type(node, model or None),
        _unit(option),
        "required" if required else default,
        "" if example is None else _code(example),
    )
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def _unit(option: str) -> str:
    return UNITS.get(option.rpartition("_")[2], "")


def _code(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict) and value:
        return "each at its default"
    return f"`{text if len(text) <= 80 else text[:77] + '...'}`"


def _type(node: Mapping[str, Any], model: str | None) -> str:
    """Return the type of a value in words, with links to the blocks that it may be."""
    if "$ref" in node:
        return _link(node["$ref"].rpartition("/")[2], model)
    if "const" in node:
        return _code(node["const"])
    if "enum" in node:
        return ", ".join(_code(value) for value in node["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in node:
            kinds = [_type(one, model) for one in node[key] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds)) if kinds else "none"
    return _plain(node, model)


def _plain(node: Mapping[str, Any], model: str | None) -> str:
    kind = node.get("type", "any")
    if kind == "array":
        several = [_type(one, model) for one in node.get("prefixItems", ())]
        return f"({', '.join(several)})" if several else f"list of {_type(node.get('items', {}), model)}"
    if kind == "object":
        below = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), None)
        return f"names with {_type(below, model)}" if isinstance(below, Mapping) else "names with values"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(kind, kind) + _limits(node)


def _limits(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum", node.get("exclusiveMinimum")), node.get("maximum", node.get("exclusiveMaximum"))
    said = []
    if low is not None:
        said.append(f"{'above' if 'exclusiveMinimum' in node else 'from'} {low:g}")
    if high is not None:
        said.append(f"{'below' if 'exclusiveMaximum' in node else 'to'} {high:g}")
    return f" ({' '.join(said)})" if said else ""


def _link(name: str, model: str | None) -> str:
    block = _homes()[name]
    place = "" if model and _homes().get(model) == block else f"{block}.md"
    return f"[{name}]({place}#{name.lower()})"


def _shape(node: Mapping[str, Any]) -> str:
    return f"Takes: {_type(node, None)}."


def _sentence(node: Mapping[str, Any]) -> str:
    text = str(node.get("description", ""))
    if not text and "$ref" in node:
        text = str(_schema()["$defs"][node["$ref"].rpartition("/")[2]].get("description", ""))
    return text.split("\n\n")[0]


def _about(node: Mapping[str, Any]) -> str:
    text = re.split(r"\n\n?(?:Parameters|Notes|References|Raises)\n-+", str(node.get("description", "")))[0]
    return text.replace("``", "`").strip()

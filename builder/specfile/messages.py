"""Turn the faults that pydantic found into messages: where, what was found, what was expected, the nearest name."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from builder.errors import counted
from builder.specfile.positions import Path

SECRET = re.compile(r"key|token|password|secret", re.IGNORECASE)
"""Names of fields whose values no message repeats."""

MOST_SHOWN = 80
"""Most characters of a value that a message repeats."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a block of keys and values",
    "mapping_type": "a block of keys and values",
    "model_type": "a block of keys and values",
    "model_attributes_type": "a block of keys and values",
    "date_type": "a date (YYYY-MM-DD)",
    "date_parsing": "a date (YYYY-MM-DD)",
    "date_from_datetime_parsing": "a date (YYYY-MM-DD)",
}


PATTERNS_IN_WORDS = {
    r"^[a-z0-9][a-z0-9-]{0,63}$": "small letters, digits and hyphens, 64 at most, such as chest-ct",
    r"^[a-z][a-z0-9_]{0,63}$": "a small letter, then small letters, digits or _, 64 at most, such as left_lung",
    r"^[a-z][a-z0-9_]{0,31}$": "a small letter, then small letters, digits or _, 32 at most, such as t2w",
    r"^[a-z][a-z0-9_-]{0,63}$": "a small letter, then small letters, digits, _ or -, 64 at most, such as thin-slices",
    r"^[A-Za-z][A-Za-z0-9_]{0,63}$": "a letter, then letters, digits or _, 64 at most, such as T1w",
    r"^([a-z][a-z0-9]{0,15}_)?$": "nothing, or a small letter, small letters or digits and a final _, such as native_",
    r"^[A-Z]{2,16}$": "two or more capital letters, such as US",
    r"^\d{4}-\d{2}-\d{2}$": "a date (YYYY-MM-DD)",
    r"^10\.\d{4,9}/\S+$": "a DOI, such as 10.5281/zenodo.1234",
    r"^[^@\s]+@[^@\s]+$": "an e-mail address",
    r"^https?://\S+$": "an address that begins with https:// or http://",
}
"""What a pattern asks for, to people who do not read regular expressions."""


def described(error: ValidationError, document: Any, *models: type[BaseModel]) -> Iterator[tuple[Path, str, bool]]:
    """Yield each fault once: its place in the document, a message, and whether the key itself is wrong.

    Parameters
    ----------
    document
        What was validated. A path leads into it as far as it has values.
    models
        The models as one of which it was validated. They know the valid names.
    """
    items = error.errors(include_url=False, include_input=True)
    places = [_data_path(item["loc"], document) for item in items]
    for item, path in zip(items, places, strict=True):
        # pydantic also counts a refused element as missing
        refused_below = any(other[: len(path)] == path and len(other) > len(path) for other in places)
        if item["type"] == "too_short" and refused_below:
            continue
        if path or not (named := _leading_path(item["msg"], document)):
            yield path, _message(item, path, models), item["type"] == "extra_forbidden"
        else:
            yield named, _text(item), False


def _text(item: Mapping[str, Any]) -> str:
    return str(item["msg"]).removeprefix("Value error, ")


def _leading_path(message: str, document: Any) -> Path:
    """Return the place that a validator of the whole document names at the start of its message."""
    named = re.match(r"(?:Value error, )?([a-z_]+(?:\.[a-z0-9_]+)*): ", message)
    return _data_path(named[1].split("."), document) if named else ()


def _data_path(location: Sequence[int | str], document: Any) -> Path:
    """Return the part of pydantic's location that is in the data: without tags of unions, with a missing last key."""
    path: list[int | str] = []
    node: Any = document
    for i, step in enumerate(location):
        if _holds(node, step):
            node = node[step]
            path.append(step)
        elif i == len(location) - 1 and isinstance(node, Mapping) and isinstance(step, str):
            path.append(step)
    return tuple(path)


def _holds(node: Any, step: int | str) -> bool:
    if isinstance(node, list):
        return isinstance(step, int) and step < len(node)
    return isinstance(node, Mapping) and step in node


def _message(item: Mapping[str, Any], path: Path, models: Sequence[type[BaseModel]]) -> str:
    where = ".".join(map(str, path))
    prefix = f"{where}: " if where else ""
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _known_names(models, item["loc"][:-1])
        return f"{prefix}found the unknown key {str(path[-1])!r}{_nearest(str(path[-1]), known)}"
    if kind == "missing" and isinstance(item["loc"][-1], int):
        return f"{prefix}found {_items(len(item['input']))}, expected at least {item['loc'][-1] + 1}"
    if kind == "missing":
        return f"{prefix}found nothing, expected a value for the required key {str(item['loc'][-1])!r}"
    if kind == "invalid_key":
        return f"{prefix}found a key that is no text, expected a name"
    if kind == "union_tag_invalid":
        found, tags = str(item["ctx"]["tag"]), re.findall(r"'([^']+)'", item["ctx"]["expected_tags"])
        near = difflib.get_close_matches(found, tags, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where + '.' if where else ''}kind: found {found!r}, expected one of: {', '.join(tags)}{hint}"
    if kind == "union_tag_not_found":
        kinds = ", ".join(_kinds(models, item["loc"]))
        return f"{prefix}found no key 'kind', expected one that says what this block is: {kinds}"
    text = _text(item).removeprefix(f"{path[-1]}: " if path else "")
    if kind == "value_error" and "found" in text:  # a validator that says what it found may show it
        return f"{prefix}{text}"
    return f"{prefix}found {_shown(item['input'], path)}, {_expected(item)}"


def _expected(item: Mapping[str, Any]) -> str:
    if item["type"] == "literal_error":
        levels = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        near = difflib.get_close_matches(str(item["input"]), levels, n=1, cutoff=0.5)
        return f"expected {item['ctx']['expected']}" + (f"; did you mean {near[0]!r}?" if near else "")
    if item["type"] in _EXPECTED:
        return f"expected {_EXPECTED[item['type']]}"
    if item["type"] == "string_pattern_mismatch":
        return (
            f"expected {PATTERNS_IN_WORDS.get(item['ctx']['pattern'], 'text that matches ' + item['ctx']['pattern'])}"
        )
    text = _text(item)
    for start in ("Input should be ", "Input should have ", "String should have "):
        if text.startswith(start):
            rest = text.removeprefix(start)
            return f"expected {'a number ' if rest.startswith(('greater', 'less')) else ''}{rest}"
    if item["type"] in ("too_short", "too_long"):
        bound = item["ctx"].get("min_length", item["ctx"].get("max_length"))
        return f"expected at {'least' if item['type'] == 'too_short' else 'most'} {_items(bound)}"
    return text[:1].lower() + text[1:]


def _items(count: int) -> str:
    return counted(count, "item")


def _shown(value: Any, path: Path) -> str:
    if any(SECRET.search(str(step)) for step in path):
        return "a value (not shown)"
    if value is None or value == "":
        return "nothing"
    if isinstance(value, Mapping):
        return "a block of keys and values"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _nearest(found: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    expected = f", expected one of: {', '.join(known)}"
    return f"; did you mean {near[0]!r}?" if near else expected


def _kinds(models: Sequence[Any], location: Sequence[int | str]) -> list[str]:
    here: list[Any] = [*models]
    for step in location:
        here = [inner for candidate in here for inner in _step(candidate, step)]
    leaves = [leaf for candidate in here for leaf in _models(candidate) if "kind" in leaf.model_fields]
    return sorted({kind for leaf in leaves for kind in get_args(leaf.model_fields["kind"].annotation)})


def _known_names(models: Sequence[Any], location: Sequence[int | str]) -> list[str]:
    """Return the names of the fields of the models that pydantic's location leads to."""
    here: list[Any] = [*models]
    for step in location:
        here = [inner for candidate in here for inner in _step(candidate, step)]
    names = {
        field.alias or name
        for candidate in here
        for leaf in _models(candidate)
        for name, field in leaf.model_fields.items()
    }
    return sorted(names)


def _step(annotation: Any, step: int | str) -> Iterator[Any]:
    for model in _models(annotation):
        for name, field in model.model_fields.items():
            if step in (name, field.alias):
                yield field.annotation
        if "kind" in model.model_fields and step in get_args(model.model_fields["kind"].annotation):
            yield model
    yield from _element_types(annotation)


def _element_types(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin in (list, tuple, dict) or (isinstance(origin, type) and issubclass(origin, Mapping | Sequence)):
        yield from (a for a in get_args(annotation) if a is not Ellipsis)
    elif origin is not None:
        for argument in get_args(annotation):
            yield from _element_types(argument)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Union or get_origin(annotation) is not None:
        if get_origin(annotation) in (list, tuple, dict):
            return
        for argument in get_args(annotation):
            yield from _models(argument)

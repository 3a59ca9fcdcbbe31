"""From YAML text to a DatasetSpec: all faults at once, each with file:line:column and the nearest valid name."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import ScalarNode

from builder.cohort import check_cohort
from builder.errors import SpecError
from builder.spec import LOCATION_FIELDS, DatasetSpec, candidate_schema
from builder.split import TRUE_DATE

MAXIMUM_BYTES = 1 << 20
MAXIMUM_DEPTH = 32
PARAMETER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a spec, at a position counted from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


def load_spec(path: str | Path) -> DatasetSpec:
    """Read and validate a spec file.

    Raises
    ------
    SpecError
        Holding every fault, one a line.
    """
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"{name}:1:1: cannot read the spec: {error.strerror}") from None
    return parse_spec(data, name=name)


def parse_spec(data: bytes, *, name: str = "spec") -> DatasetSpec:
    """Validate the bytes of a spec; ``name`` is what messages call it. Raises SpecError with every fault."""
    tree = _parse_yaml(data, name)
    try:
        spec = DatasetSpec.model_validate(_plain(tree))
    except ValidationError as error:
        _raise(_faults(error, tree, name))
    _raise(_column_faults(spec, tree, name))
    return spec


def fill_parameters(spec: DatasetSpec, parameters: Mapping[str, str]) -> DatasetSpec:
    """The spec with ``${NAME}`` replaced in every field that holds a location.

    Locations are not part of any fingerprint; what the sources hold is. Raises SpecError naming each parameter that
    has no value, and each given one that nothing uses.
    """
    used: set[str] = set()
    missing: set[str] = set()

    def filled(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            used.add(match[1])
            if match[1] not in parameters:
                missing.add(match[1])
            return parameters.get(match[1], match[0])

        return PARAMETER.sub(value, text)

    tree = _map_urls(spec.model_dump(mode="json", by_alias=True), filled)
    complaints = [f"parameter {n}: found no value, expected --param {n}=VALUE" for n in sorted(missing)]
    for name in sorted(set(parameters) - used):
        near = difflib.get_close_matches(name, sorted(used), n=1)
        complaints.append(
            f"parameter {name}: the spec uses no ${{{name}}}" + (f"; did you mean {near[0]}?" if near else "")
        )
    if complaints:
        raise SpecError("\n".join(complaints))
    return DatasetSpec.model_validate(tree)


def _raise(faults: Iterable[Fault]) -> None:
    """SpecError with all faults, if there are any, each once and in the order of the file."""
    found = sorted(set(faults), key=lambda f: (f.line, f.column, f.message))
    if found:
        raise SpecError("\n".join(str(fault) for fault in found)) from None


def _column_faults(spec: DatasetSpec, tree: CommentedMap, name: str) -> Iterator[Fault]:
    """Expressions that do not compile, and columns nobody declares."""
    schema = candidate_schema(spec)
    found: list[tuple[tuple[str | int, ...], str]] = [
        (("cohort", *place), message) for place, message in check_cohort(spec.cohort, schema)
    ]
    compared = spec.report.reference.shares if spec.report.reference is not None else {}
    named: list[tuple[tuple[str | int, ...], str]] = [
        *((("splits", "stratify", i), c) for i, c in enumerate(spec.splits.stratify)),
        *((("splits", "leave_one_out"), c) for c in (spec.splits.leave_one_out,) if c is not None),
        *(
            (("splits", "hold_out", i, "column"), h.column)
            for i, h in enumerate(spec.splits.hold_out)
            if h.column != TRUE_DATE
        ),
        *((("report", "groups", i), c) for i, c in enumerate(spec.report.groups)),
        *((("report", "outcomes", i), c) for i, c in enumerate(spec.report.outcomes)),
        *((("report", "reference", "shares", c), c) for c in compared),
    ]
    for place, column in named:
        if column not in schema.names:
            near = difflib.get_close_matches(column, schema.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            found.append((place, f"found the unknown column {column!r}{hint}"))
    for place, message in found:
        line, column_number = _position(tree, place, at_key=False)
        yield Fault(name, line + 1, column_number + 1, f"{'.'.join(map(str, place))}: {message}")


def _map_urls(node: Any, filled: Any) -> Any:
    if isinstance(node, dict):
        return {
            k: filled(v) if k in LOCATION_FIELDS and isinstance(v, str) else _map_urls(v, filled)
            for k, v in node.items()
        }
    if isinstance(node, list):
        return [_map_urls(v, filled) for v in node]
    return node


def _parse_yaml(data: bytes, name: str) -> CommentedMap:
    if len(data) > MAXIMUM_BYTES:
        raise SpecError(f"{name}:1:1: found {len(data)} bytes, expected at most {MAXIMUM_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(f"{name}:{line}:1: found bytes that are not UTF-8, expected UTF-8 text") from None
    try:
        _refuse_aliases_and_depth(text, name)
        tree = YAML(typ="rt", pure=True).load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = (error.problem or "not valid YAML").split("\n")[0]
        raise SpecError(f"{name}:{line}:{column}: {problem}") from None
    except YAMLError as error:
        raise SpecError(f"{name}:1:1: not valid YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise SpecError(f"{name}:1:1: a value cannot be read: {error}") from None
    if not isinstance(tree, CommentedMap):
        raise SpecError(f"{name}:1:1: found {type(tree).__name__}, expected a mapping of the spec's blocks")
    return tree


def _refuse_aliases_and_depth(text: str, name: str) -> None:
    depth = 0
    for event in YAML(typ="rt", pure=True).parse(StringIO(text)):
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise SpecError(f"{name}:{line}:{column}: found a YAML anchor or alias, expected the value written out")
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > MAXIMUM_DEPTH:
                raise SpecError(f"{name}:{line}:{column}: found nesting deeper than {MAXIMUM_DEPTH} levels")
        elif isinstance(event, CollectionEndEvent):
            depth -= 1


def _plain(node: Any) -> Any:
    if isinstance(node, CommentedMap):
        return {_plain(k): _plain(v) for k, v in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(v) for v in node]
    if isinstance(node, bool):
        return bool(node)
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if isinstance(node, ScalarNode):
        return str(node.value)
    return node


def _faults(error: ValidationError, tree: CommentedMap, name: str) -> Iterator[Fault]:
    for item in error.errors(include_url=False, include_input=True):
        path = _data_path(item["loc"], tree)
        line, column = _position(tree, path, at_key=item["type"] == "extra_forbidden")
        yield Fault(name, line + 1, column + 1, _message(item, path))


def _data_path(location: Sequence[int | str], tree: Any) -> tuple[int | str, ...]:
    """The part of pydantic's location that exists in the data: union tags are dropped, a missing key is kept last."""
    path: list[int | str] = []
    node = tree
    for i, step in enumerate(location):
        if (isinstance(node, CommentedMap) and step in node) or (
            isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node)
        ):
            node = node[step]
            path.append(step)
        elif i == len(location) - 1 and isinstance(node, CommentedMap) and isinstance(step, str):
            path.append(step)
    return tuple(path)


def _position(tree: Any, path: Sequence[int | str], *, at_key: bool) -> tuple[int, int]:
    node: Any = tree
    position = (0, 0)
    for i, step in enumerate(path):
        if isinstance(node, CommentedMap):
            if step not in node:
                break
            last = i == len(path) - 1
            position = node.lc.key(step) if (at_key and last) or not _is_scalar(node[step]) else node.lc.value(step)
        elif isinstance(node, CommentedSeq):
            position = node.lc.item(step)
        else:
            break
        node = node[step]
    return position


def _is_scalar(node: Any) -> bool:
    return not isinstance(node, CommentedMap | CommentedSeq)


def _message(item: Any, path: Sequence[int | str]) -> str:
    where = ".".join(str(s) for s in path)
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _known_names(DatasetSpec, item["loc"][:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of: {', '.join(known)}"
        return f"{where}: found the unknown key {str(path[-1])!r}{hint}"
    if kind == "missing":
        return f"{where}: found nothing, expected a value for the required key {str(item['loc'][-1])!r}"
    if kind == "union_tag_invalid":
        found, expected = item["ctx"]["tag"], item["ctx"]["expected_tags"]
        near = difflib.get_close_matches(str(found), re.findall(r"'([^']+)'", expected), n=1, cutoff=0.4)
        return f"{where}.kind: found {found!r}, expected one of {expected}" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
    if kind == "union_tag_not_found":
        return f"{where}: found no key 'kind', expected one that says what this block is"
    found = item["input"]
    text = item["msg"].removeprefix("Value error, ")
    # a validator that says itself what it found knows whether it may be shown: a secret may not
    tells = text.startswith("found") or not isinstance(found, str | int | float | bool)
    shown = "" if tells else f"found {found!r}, "
    return f"{where}: {shown}{text[:1].lower()}{text[1:]}"


def _known_names(model: Any, location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that pydantic's location leads to."""
    here: list[Any] = [model]
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

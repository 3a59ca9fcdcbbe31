"""Turn YAML text into a DatasetSpec, or report all faults at once with file:line:column and the nearest valid name."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap

from builder.errors import SpecError
from builder.model.options import LOCATION_FIELDS
from builder.spec import DatasetSpec
from builder.specfile.columns import column_faults
from builder.specfile.messages import described
from builder.specfile.positions import Fault, fail, parse_yaml, plain, position

__all__ = ["Fault", "described", "fill_parameters", "load_spec", "parse_spec"]

PARAMETER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_spec(path: str | Path) -> DatasetSpec:
    """Read and validate a spec file.

    Raises
    ------
    SpecError
        With every fault, one per line.
    """
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise fail(name, f"cannot read the spec: {why}; expected the path of a YAML file") from None
    return parse_spec(data, name=name)


def parse_spec(data: bytes, *, name: str = "spec") -> DatasetSpec:
    """Validate the bytes of a spec; ``name`` is what messages call it. Raises SpecError with every fault."""
    tree = parse_yaml(data, name)
    document = plain(tree)
    faults = list(_column_faults(document, tree, name))
    try:
        spec = DatasetSpec.model_validate(document)
    except ValidationError as error:
        _raise([*faults, *_faults(error, document, tree, name)])
        raise  # unreachable: a ValidationError has at least one fault
    _raise(faults)
    return spec


def fill_parameters(spec: DatasetSpec, parameters: Mapping[str, str]) -> DatasetSpec:
    """Return the spec with ``${NAME}`` replaced in every field that holds a location.

    Fingerprints depend on what the sources hold, not on where they are.

    Raises
    ------
    SpecError
        If a parameter has no value, nothing uses it, or a location is invalid with its value. The message names each.
    """
    used: set[str] = set()

    def filled(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            used.add(match[1])
            return parameters.get(match[1], match[0])

        return PARAMETER.sub(value, text)

    # options that the spec does not state stay unstated, because some defaults are less strict than a stated value
    document = _map_urls(spec.model_dump(mode="json", by_alias=True, exclude_unset=True), filled)
    complaints = list(_parameter_faults(parameters, used))
    if complaints:
        raise SpecError("\n".join(complaints))
    try:
        return DatasetSpec.model_validate(document)
    except ValidationError as error:
        lines = [message for _, message, _ in described(error, document, DatasetSpec)]
        raise SpecError("\n".join(dict.fromkeys(lines))) from None


def _parameter_faults(parameters: Mapping[str, str], used: Iterable[str]) -> Iterator[str]:
    names = sorted(used)
    for name in names:
        if name not in parameters:
            yield f"parameter {name}: found no value, expected --param {name}=VALUE"
    for name, value in sorted(parameters.items()):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            uses = "; did you mean " + near[0] + "?" if near else f", which uses {', '.join(names) or 'no parameter'}"
            yield f"parameter {name}: found no ${{{name}}} in the spec{uses}"
        elif not value.strip():
            yield (
                f"parameter {name}: found an empty value, expected --param {name}=VALUE; "
                "is the shell variable set that you meant?"
            )
        elif any("\ud800" <= character <= "\udfff" for character in value):
            yield (
                f"parameter {name}: found {value!r}, which is not UTF-8, expected a name in UTF-8; rename it, or make "
                "a link to it that has such a name"
            )


def _raise(faults: Iterable[Fault]) -> None:
    """Raise SpecError if there are faults, with each fault once and in the order of the file."""
    found = sorted(set(faults), key=lambda f: (f.line, f.column, f.message))
    if found:
        raise SpecError("\n".join(map(str, found)), faults=[fault.__dict__ for fault in found]) from None


def _faults(error: ValidationError, document: Any, tree: CommentedMap, name: str) -> Iterator[Fault]:
    for path, message, at_key in described(error, document, DatasetSpec):
        yield Fault(name, *position(tree, path, at_key=at_key), message)


def _column_faults(document: Mapping[str, Any], tree: CommentedMap, name: str) -> Iterator[Fault]:
    for path, message in column_faults(document):
        yield Fault(name, *position(tree, path), message)


def _map_urls(node: Any, filled: Callable[[str], str]) -> Any:
    if isinstance(node, dict):
        return {
            k: filled(v) if k in LOCATION_FIELDS and isinstance(v, str) else _map_urls(v, filled)
            for k, v in node.items()
        }
    if isinstance(node, list):
        return [_map_urls(v, filled) for v in node]
    return node

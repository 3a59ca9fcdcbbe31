"""Parse YAML text, within limits, into a tree that knows the position of each of its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.nodes import ScalarNode

from builder.errors import SpecError

MAXIMUM_BYTES = 1 << 20
MAXIMUM_DEPTH = 32

Path = tuple[int | str, ...]
"""Keys and list positions from the top of a document to one of its values."""


@dataclass(frozen=True)
class Fault:
    """One fault in a file, with its line and column counted from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


def fail(name: str, message: str, *, line: int = 1, column: int = 1) -> SpecError:
    """Return the error for a single fault."""
    fault = Fault(name, line, column, message)
    return SpecError(str(fault), faults=[fault.__dict__])


def parse_yaml(data: bytes, name: str) -> CommentedMap:
    """Parse the mapping in a file. Messages call the file ``name``. Raises SpecError."""
    if len(data) > MAXIMUM_BYTES:
        raise fail(name, f"found {len(data)} bytes, expected at most {MAXIMUM_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise fail(name, "found bytes that are not UTF-8, expected UTF-8 text", line=line) from None
    try:
        _refuse_aliases_tags_and_depth(text, name)
        tree = YAML(typ="rt", pure=True).load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = (error.problem or "not valid YAML").split("\n")[0]
        raise fail(name, f"not valid YAML: {problem}{_advice(problem)}", line=line, column=column) from None
    except YAMLError as error:
        raise fail(name, f"not valid YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise fail(name, f"a value cannot be read: {error}") from None
    if not isinstance(tree, CommentedMap):
        found = "nothing" if tree is None else "a list" if isinstance(tree, CommentedSeq) else "a single value"
        raise fail(name, f"found {found}, expected a mapping of blocks such as name, sources and samples")
    return tree


def _advice(problem: str) -> str:
    if "\\t" in problem:
        return "; expected spaces in front of a key, not a tab"
    return "; expected each key once" if "duplicate key" in problem else ", expected YAML 1.2"


def plain(node: Any) -> Any:
    """Return a tree as plain Python values."""
    if isinstance(node, CommentedMap):
        return {plain(k): plain(v) for k, v in node.items()}
    if isinstance(node, CommentedSeq):
        return [plain(v) for v in node]
    if isinstance(node, bool):
        return bool(node)
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if isinstance(node, ScalarNode):
        return str(node.value)
    return node


def position(tree: Any, path: Sequence[int | str], *, at_key: bool = False) -> tuple[int, int]:
    """Return line and column, counted from 1, of the value at a path, or of the part of the path that exists.

    Parameters
    ----------
    at_key
        Whether the last key itself is wrong and not its value.
    """
    node: Any = tree
    found = (0, 0)
    for i, step in enumerate(path):
        if isinstance(node, CommentedMap):
            if step not in node:
                break
            last = i == len(path) - 1
            scalar = not isinstance(node[step], CommentedMap | CommentedSeq)
            found = node.lc.value(step) if scalar and not (at_key and last) else node.lc.key(step)
        elif isinstance(node, CommentedSeq):
            if not isinstance(step, int) or step >= len(node):
                break
            found = node.lc.item(step)
        else:
            break
        node = node[step]
    return found[0] + 1, found[1] + 1


def _refuse_aliases_tags_and_depth(text: str, name: str) -> None:
    depth = 0
    for event in YAML(typ="rt", pure=True).parse(StringIO(text)):
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            message = "found a YAML anchor or alias, expected the value written out"
            raise fail(name, message, line=line, column=column)
        if getattr(event, "tag", None):
            raise fail(name, "found a YAML tag, expected the value without one", line=line, column=column)
        if isinstance(event, ScalarEvent) and "\0" in event.value:
            raise fail(name, "found a NUL character in a text, expected none", line=line, column=column)
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > MAXIMUM_DEPTH:
                raise fail(name, f"found nesting deeper than {MAXIMUM_DEPTH} levels", line=line, column=column)
        elif isinstance(event, CollectionEndEvent):
            depth -= 1

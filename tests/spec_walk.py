"""Walk through the code as the spec goes: which function hands it to which, in the order in which calls stand."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SPEC = "DatasetSpec"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Code:
    """A package's functions and methods by their full name, and what each module's names stand for."""

    functions: Mapping[str, Function]
    modules: Mapping[str, str]
    names: Mapping[str, Mapping[str, str]]
    carriers: frozenset[str]

    def takes_spec(self, name: str) -> bool:
        """Return whether a parameter is the whole spec, or a value that holds it."""
        arguments = self.functions[name].args
        everything = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        return any(a.annotation is not None and self.carriers & _words(a.annotation) for a in everything)

    def calls(self, name: str) -> Iterator[str]:
        """Yield the functions that take the spec and are called by a function, as their calls end."""
        known = self.names[self.modules[name]]
        calls = [node for node in ast.walk(self.functions[name]) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: (call.end_lineno or 0, call.end_col_offset or 0)):
            match call.func:
                case ast.Name(id=short):
                    found = self._resolved(known.get(short, ""))
                case ast.Attribute(value=ast.Name(id=short), attr=attribute) if short in known:
                    found = self._resolved(f"{known[short]}.{attribute}")
                case _:
                    continue
            found = next((n for n in (f"{found}.__init__", found) if n in self.functions), name)
            if found != name and self.takes_spec(found):
                yield found

    def _resolved(self, name: str) -> str:
        """Return where a name is defined that a package only passes on."""
        module, _, short = name.rpartition(".")
        onward = self.names.get(module, {}).get(short, name)
        return name if name in self.functions or onward == name else self._resolved(onward)


def read_code(root: Path) -> Code:
    """Read a package."""
    functions: dict[str, Function] = {}
    modules: dict[str, str] = {}
    names: dict[str, dict[str, str]] = {}
    held: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        module = ".".join(p for p in path.relative_to(root.parent).with_suffix("").parts if p != "__init__")
        tree = ast.parse(path.read_text())
        known = names[module] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in tree.body:
            if isinstance(node, Function | ast.ClassDef):
                known[node.name] = f"{module}.{node.name}"
            inside = [(node.name, node)] if isinstance(node, Function) else []
            if isinstance(node, ast.ClassDef):
                inside = [(f"{node.name}.{n.name}", n) for n in node.body if isinstance(n, Function)]
                fields = (n.annotation for n in node.body if isinstance(n, ast.AnnAssign))
                held.setdefault(node.name, set()).update(*map(_words, fields))
            for name, function in inside:
                functions[f"{module}.{name}"] = function
                modules[f"{module}.{name}"] = module
    carriers = {SPEC}
    while more := {name for name, words in held.items() if words & carriers} - carriers:
        carriers |= more
    return Code(functions, modules, names, frozenset(carriers))


def climbs(code: Code, rooms: list[str]) -> set[tuple[str, str]]:
    """Return the steps of the walk from a function to one in a room above; ``rooms`` are lines, from the top."""
    rank = {room: number for number, line in enumerate(rooms) for room in line.split(" | ")}
    onward = {name: [*code.calls(name)] for name in code.functions}
    called = {name for names in onward.values() for name in names}
    found: set[tuple[str, str]] = set()

    def room_of(name: str) -> int:
        return rank.get(code.modules[name].split(".")[1], len(rank)) if "." in code.modules[name] else -1

    def walk(name: str, last: str) -> str:
        if room_of(name) < room_of(last):
            found.add((last, name))
        last = name
        for other in onward[name]:
            last = walk(other, last)
        return last

    for name, others in onward.items():
        if others and name not in called:
            walk(name, name)
    return found


def _words(annotation: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}

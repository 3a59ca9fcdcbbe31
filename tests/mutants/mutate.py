"""Small changes that a test should notice: where a module can be changed, and the changed source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One change: the text between two positions of a file (line from 1, column in bytes) becomes ``after``."""

    start: tuple[int, int]
    end: tuple[int, int]
    before: str
    after: str

    @property
    def lines(self) -> range:
        """The lines that the text before stands on, from 1."""
        return range(self.start[0], self.end[0] + 1)

    def apply(self, source: str) -> str:
        """The source with this change."""
        lines = source.encode().splitlines(keepends=True)
        first, last = self.start[0] - 1, self.end[0] - 1
        head, tail = lines[first][: self.start[1]], lines[last][self.end[1] :]
        lines[first : last + 1] = [head + self.after.encode() + tail]
        return b"".join(lines).decode()


def mutations(source: str) -> list[Mutation]:
    """Every change of a module, in order: each leaves a program that parses. Annotations and texts are left alone."""
    found = []
    for node, changed in _changes(ast.parse(source)):
        before = ast.get_source_segment(source, node) or ""
        after = ast.unparse(changed)
        if isinstance(changed, ast.expr) and not isinstance(changed, ast.Constant):
            after = f"({after})"
        start, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
        found.append(Mutation(start, end, before, after))
    return sorted(found, key=lambda m: (m.start, m.end, m.after))


Change: TypeAlias = tuple[ast.expr | ast.stmt, ast.expr | ast.stmt]
"""A node, and what stands in its place."""


def _changes(tree: ast.AST) -> Iterator[Change]:
    for node in _looked_at(tree):
        if isinstance(node, (ast.expr, ast.stmt)):
            yield from _changes_of(node)
        yield from _changes(node)


def _looked_at(tree: ast.AST) -> list[ast.AST]:
    """The parts of a node, less bases, annotations, decorators, docstrings, imports and texts with values in them."""
    if isinstance(tree, (ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return []
    if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return [*tree.args.defaults, *filter(None, tree.args.kw_defaults), *tree.body]
    if isinstance(tree, ast.keyword) and tree.arg == "strict":
        return []  # zip's assertion that two things have one length: only a fault could tell
    if isinstance(tree, ast.ClassDef):
        return list(tree.body)
    if isinstance(tree, ast.AnnAssign):
        return [tree.value] if tree.value is not None else []
    return list(ast.iter_child_nodes(tree))


def _changes_of(node: ast.expr | ast.stmt) -> Iterator[Change]:
    """What one node may become."""
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield from ((node.test, ast.Constant(value)) for value in (True, False) if not isinstance(node, ast.While))
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield node, ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not isinstance(node.left, ast.Constant):
        yield node, ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield node, node.values[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield node, ast.Constant(node.value + 1)
    elif isinstance(node, (ast.Raise, ast.Break, ast.Continue)) or _is_call(node):
        yield node, ast.Pass()
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SWAPPED:
        yield node, _swapped(node, SWAPPED[node.func.id])


SWAPPED = {"sorted": "", "min": "max", "max": "min", "any": "all", "all": "any"}
"""Functions that become another one; nothing stands for the first argument alone."""


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _swapped(call: ast.Call, name: str) -> ast.expr:
    return ast.Call(ast.Name(name), call.args, call.keywords) if name else call.args[0]

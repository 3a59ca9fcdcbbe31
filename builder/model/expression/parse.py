"""Parse text to nodes, by recursive descent, and check names and types."""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import SpecError
from builder.model.expression.nodes import (
    COMPARISONS,
    Both,
    Column,
    Compare,
    Constant,
    Either,
    Flag,
    Literal,
    Member,
    Missing,
    Node,
    Not,
    Operand,
    Present,
    Search,
)

_MAXIMUM_DEPTH = 50
_KEYWORDS = {"and", "or", "not", "in", "between", "is", "missing", "matches", "startswith", "contains", "true", "false"}
_TOKENS = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![A-Za-z_]))
    |(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<quoted>`[^`]+`)
    |(?P<name>[A-Za-z_][A-Za-z0-9_.]*)
    |(?P<sign><=|>=|==|!=|[=<>()\[\],])""",
    re.VERBOSE,
)


def parse(text: str, schema: pa.Schema) -> tuple[Node, tuple[str, ...]]:
    """Return the checked tree of ``text`` and the columns it reads, sorted. Raises SpecError."""
    parser = _Parser(_tokens(text), schema)
    root = parser.parse()
    return root, tuple(sorted(parser.columns))


MOST_NAMES = 20
"""Most names that a message lists."""


def suggest(name: str, names: Sequence[str]) -> str:
    """Return what to write instead of an unknown ``name``, as the end of a message."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    left = len(names) - MOST_NAMES
    more = f" and {left} more (docs/choosing-series.md)" if left > 0 else ""
    return f", expected one of {', '.join(sorted(names)[:MOST_NAMES])}{more}"


@dataclass(frozen=True)
class _Token:
    """A word of the expression; ``at`` counts characters from 1."""

    kind: str
    text: str
    at: int


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, tokens: Sequence[_Token], schema: pa.Schema) -> None:
        self._tokens, self._schema = tokens, schema
        self._next = 0
        self._depth = 0
        self.columns: set[str] = set()

    def parse(self) -> Node:
        root = self._either()
        if self._peek.kind != "end":
            _fail(self._peek, "'and', 'or' or the end")
        return root

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek
        self._next += 1
        return token

    def _accept(self, *words: str) -> _Token | None:
        if self._peek.kind in ("word", "sign") and self._peek.text in words:
            return self._take()
        return None

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            _fail(self._peek, repr(word))

    def _either(self) -> Node:
        parts = [self._both()]
        while self._accept("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Node:
        parts = [self._negation()]
        while self._accept("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _negation(self) -> Node:
        self._depth += 1
        if self._depth > _MAXIMUM_DEPTH:
            _fail(self._peek, f"at most {_MAXIMUM_DEPTH} levels of 'not' and parentheses")
        node: Node = Not(self._negation()) if self._accept("not") else self._test()
        self._depth -= 1
        return node

    def _test(self) -> Node:
        if self._accept("("):
            node = self._either()
            self._expect(")")
            return node
        left = self._operand()
        after = self._peek
        if sign := self._accept(*COMPARISONS):
            compared = self._compare(left, sign, self._operand())
            return replace(compared, ignore_case=self._ignoring_case(compared.left, compared.right))
        if isinstance(left, Literal):
            if left.family == "bool":
                return Constant(bool(left.value))
            _fail(after, "a comparison sign")
        if self._accept("is"):
            inverted = self._accept("not")
            self._expect("missing")
            return Not(Missing(left)) if inverted else Missing(left)
        inverted = self._accept("not")
        found = self._word_test(left)
        if found is not None:
            return Present(left, found) if inverted else found
        if left.family != "bool" or inverted:
            _fail(after, f"a comparison of {left.name} (a {left.family} column)")
        return Flag(left)

    def _word_test(self, column: Column) -> Node | None:
        if word := self._accept("in"):
            self._expect("[")
            values = [self._literal()]
            while self._accept(","):
                values.append(self._literal())
            self._expect("]")
            for value in values:
                self._compare(column, word, value)
            return Member(column, tuple(values), self._ignoring_case(column))
        if word := self._accept("between"):
            low = self._literal()
            self._expect("and")
            high = self._literal()
            ends = (self._compare(column, _Token("sign", s, word.at), v) for s, v in ((">=", low), ("<=", high)))
            return Both(tuple(ends))
        if word := self._accept("matches", "startswith", "contains"):
            return self._search(column, word)
        return None

    def _search(self, column: Column, word: _Token) -> Node:
        token = self._peek
        pattern = self._literal()
        if pattern.family != "text":
            _fail(token, "a text in quotes")
        allowed = ("text", "texts") if word.text == "contains" else ("text",)
        if column.family not in allowed:
            _fail(word, f"a comparison of {column.name} (a {column.family} column)")
        if word.text == "matches":
            try:
                pc.match_substring_regex(pa.array([""], pa.string()), str(pattern.value))
            except pa.ArrowInvalid as error:
                raise SpecError(f"column {token.at}: found an invalid regular expression: {error}") from error
        return Search(column, word.text, str(pattern.value), self._ignoring_case(column))

    def _ignoring_case(self, *operands: Operand) -> bool:
        """Take ``ignoring case`` where it follows. Neither word is reserved: a column may have either name."""
        first, second = self._tokens[self._next : self._next + 2] if self._peek.kind == "name" else (None, None)
        if first is None or second is None or (first.text.lower(), second.text.lower()) != ("ignoring", "case"):
            return False
        if any(operand.family not in ("text", "texts") for operand in operands):
            _fail(first, "'and', 'or' or the end: only texts have a case")
        self._next += 2
        return True

    def _compare(self, left: Operand, sign: _Token, right: Operand) -> Compare:
        families = {left.family, right.family}
        dated = families == {"date", "text"} and all(_is_dated(operand) for operand in (left, right))
        if "texts" in families or (len(families) > 1 and not dated):
            raise SpecError(
                f"column {sign.at}: found a comparison of {_describe(left)} with {_describe(right)}, "
                "expected two of one kind" + _quoting(left, right)
            )
        if families == {"bool"} and sign.text in ("<", "<=", ">", ">=", "between"):
            _fail(sign, "'=' or '!=' between truth values")
        return Compare(left, "=" if sign.text == "in" else sign.text, right)

    def _operand(self) -> Operand:
        token = self._peek
        if token.kind not in ("name", "quoted"):
            return self._literal()
        self._take()
        name = token.text.strip("`")
        if self._schema.get_field_index(name) < 0:
            found = f"column {token.at}: found the unknown column {name!r}"
            hint = _OF_LISTS if _UIDS.fullmatch(name) else suggest(name, self._schema.names)
            if hint is not _OF_LISTS and "did you mean" not in hint and token.kind != "quoted":
                hint = f"; if it is a text, write {name!r} with its quotes{hint}"
            raise SpecError(found + hint)
        self.columns.add(name)
        return Column(name, _family(self._schema.field(name).type, token), token.at)

    def _literal(self) -> Literal:
        token = self._take()
        if token.kind == "text":
            return Literal(re.sub(r"\\(['\"\\])", r"\1", token.text[1:-1]), "text", token.at)
        if token.kind == "number":
            number = float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                _fail(token, "a number of at most 64 bits")
            return Literal(number, "number", token.at)
        if token.kind == "word" and token.text in ("true", "false"):
            return Literal(token.text == "true", "bool", token.at)
        _fail(token, "a column, a number or a text in quotes")


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(text):
        found = _TOKENS.match(text, position)
        if found is None:
            _fail(_Token("sign", text[position], position + 1), "a column, a number, a text in quotes or a sign")
        kind, word = str(found.lastgroup), found.group()
        if kind == "name" and word.lower() in _KEYWORDS:
            kind, word = "word", word.lower()
        if kind != "space":
            tokens.append(_Token(kind, word, position + 1))
        position = found.end()
    return [*tokens, _Token("end", "", len(text) + 1)]


def withhold_literals(text: str, names: Collection[str], *, told: str, dates: Collection[str] = ()) -> str:
    """Return an expression in which texts that are compared with one of the columns ``names`` read ``told``.

    Of the columns ``dates`` only single days are withheld (``=``, ``in``), no limits (``<``). ``t2.patient_id`` counts
    as ``patient_id``. A text that is no expression comes back as it is.
    """
    try:
        tokens = _tokens(text)
    except SpecError:
        return text
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        joins = token.kind == "word" and token.text in ("and", "or")
        if joins and not (token.text == "and" and any(t.text == "between" for t in parts[-1][-2:])):
            parts.append([])
        else:
            parts[-1].append(token)
    for part in reversed(parts):
        read = {t.text.strip("`").rpartition(".")[2] for t in part if t.kind in ("name", "quoted")}
        single = any(t.text in ("=", "==", "!=", "in") for t in part if t.kind != "text")
        if not read.isdisjoint(names) or (single and not read.isdisjoint(dates)):
            for token in reversed([t for t in part if t.kind == "text"]):
                start = token.at - 1
                text = text[:start] + repr(told) + text[start + len(token.text) :]
    return text


def _fail(token: _Token, expected: str) -> NoReturn:
    found = "the end" if token.kind == "end" else repr(token.text)
    raise SpecError(f"column {token.at}: found {found}, expected {expected}")


def _family(kind: pa.DataType, token: _Token) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return "texts"
    families = {
        "bool": pa.types.is_boolean,
        "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t),
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
        "date": lambda t: pa.types.is_date(t) or pa.types.is_timestamp(t),
    }
    for family, test in families.items():
        if test(kind):
            return family
    _fail(token, f"a column of numbers, texts, dates or truth values (this one is {kind})")


def _is_dated(operand: Operand) -> bool:
    """Return whether it is a date, or a text that is one (YYYY-MM-DD)."""
    if operand.family == "date":
        return True
    if isinstance(operand, Column) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(operand.value)):
        return False
    try:
        date.fromisoformat(str(operand.value))
    except ValueError:
        return False
    return True


def _quoting(left: Operand, right: Operand) -> str:
    """Say how to write a number that is meant as a text; nothing where no text column is compared with a number."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Column) and one.family == "text" and other.family == "number":
            return "" if isinstance(other, Column) else f"; for a text, write '{other.value!r}' with its quotes"
    return ""


def _describe(operand: Operand) -> str:
    return f"{operand.name} (a {operand.family} column)" if isinstance(operand, Column) else repr(operand.value)


_UIDS = re.compile("(?i)(?:series|study|sop|frame_?of_?reference)(?:_?instance)?_?uid")
_OF_LISTS = (
    "; UIDs are no columns: to choose series or studies by their UIDs, join a list of them as a clinical table "
    "with `by: {COLUMN: series}` (docs/choosing-series.md)"
)
"""Said of the names of UIDs, of which the nearest columns are about something else."""

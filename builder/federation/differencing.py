"""Whether a new table, beside all that a site has told before, would give a small number away by difference.

Two tables of the same archive in two versions, or under two rules of a cohort, are each safe and still tell together
who came, left or is in one rule only: the difference of their numbers. A site therefore keeps a ledger of what it has
told. Three things are checked with whole-number programs over all tables of the ledger at once: no number hidden in any
of them is narrowed down to less than ``k``; no number of newcomers is known to be small; and what is told twice of the
same persons is the same. Somebody who solves them is assumed to know that an archive only grew, or only shrank,
wherever the numbers told do not contradict it.

The size of a structure depends on the grid that images are resampled to. On another grid a few persons lie in another
band, and most do not. What was hidden of such a quantity therefore stays hidden, a number that changed by less than
``k`` is hidden, and the rest is judged as if everything told before had been told with the numbers of now: somebody
who takes the two for the same learns no more. The same holds where rows of the same persons were corrected.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np

from builder.errors import PrivacyError, counted
from builder.federation.suppression import suppress
from builder.federation.tables import (
    ANY,
    Column,
    Counts,
    Disclosed,
    Pattern,
    cells_of,
    check_size,
    matrix,
    part,
    patterns,
    together,
    vector,
    widened,
)
from builder.federation.witnesses import Known, Ranges, Sparse, solve

MOST_NUMBERS: Final = 8000
"""Most cells that the tables of a ledger may have together, each archive's version counted by itself."""


@dataclass(frozen=True)
class Told:
    """An entry of a site's ledger; it stays at the site.

    Parameters
    ----------
    people
        Keyed digest of the persons who were counted.
    question
        Digest of what decides who is counted: the rules of the cohort, without whatever else is in a spec.
    table
        What was told.
    grids
        Of a column that is measured in stored samples, what decided these.
    """

    people: str
    question: str
    table: Disclosed
    grids: Mapping[str, str] = field(default_factory=dict)


def tell(
    counts: Counts,
    k: int,
    *,
    people: str,
    question: str,
    asked: Iterable[Sequence[str]] | None = None,
    ledger: Sequence[Told] = (),
    grids: Mapping[str, str] | None = None,
) -> Told:
    """Return what a site may tell of a table after all that is in its ledger; the entry to add to the ledger.

    Numbers that changed by less than ``k`` since an earlier table are hidden. If the rest would still give something
    away, what was hidden before is hidden again, then all cells, and then everything but the total.

    Raises
    ------
    PrivacyError
        If the table would still give something away, or nothing is left to tell.
    """
    asked = None if asked is None else [tuple(names) for names in asked]
    wanted = patterns(counts.columns, asked)
    numbers = dict(zip(wanted, (matrix(counts.columns, wanted) @ vector(counts)).tolist(), strict=True))
    names = {column.name for column in counts.columns}
    parts = [(entry, part(entry.table, names)) for entry in ledger]
    same = [table for entry, table in parts if entry.people == people and _agrees(table, counts)]
    new = Told(people, question, Disclosed(counts.columns, k, {}, ()), grids or {})
    unlike = [t for e, t in parts if t not in same and (_moved(replace(e, table=t), new) or e.people == people)]
    others = [entry for entry, table in parts if table not in same]
    # What one table hides to protect its cells would give them away when another told it.
    hidden = [_expressed(table, dict.fromkeys(table.hidden, 0), counts.columns) for table in (*same, *unlike)]
    kept = {pattern for patterns_ in hidden for pattern in patterns_}
    changed = {
        pattern
        for entry in others
        for pattern, before in _expressed(entry.table, entry.table.shown, counts.columns).items()
        if pattern in numbers and _is_small(numbers[pattern] - before, k, same=entry.question == question)
    }
    refused: PrivacyError | None = None
    for facts, beside in _ways(same, unlike, counts, wanted):
        for more in _coarser(numbers, ledger, counts.columns):
            try:
                table = suppress(counts, k, asked=asked, told=facts, withheld=changed | more | kept | beside)
                told = replace(new, table=_without(table, changed))
                if changed and not told.table.shown:
                    break
                check_differences(told, ledger)
            except PrivacyError as error:
                refused = error
            else:
                return told
    if refused is not None:
        raise refused
    raise PrivacyError(
        f"found that {counted(len(changed), 'number')} changed by fewer than {k} persons since an earlier table, "
        "and nothing else to tell; send the earlier offer again, or wait until more persons have come"
    )


def _moved(one: Told, other: Told) -> set[str]:
    """Return the columns of both that were measured in other samples."""
    shared = {c.name for c in one.table.columns} & {c.name for c in other.table.columns}
    return {name for name in shared if one.grids.get(name) != other.grids.get(name)}


def _ways(
    same: list[Disclosed], unlike: list[Disclosed], counts: Counts, wanted: Sequence[Pattern]
) -> Iterator[tuple[list[Disclosed], set[Pattern]]]:
    """Yield the tables that somebody is assumed to know, and what to hide because of that.

    Tables of nearly the same are taken to be known with the numbers of now. If nothing can be told beside these,
    nothing is told that they did not tell.
    """
    yield [*same, *(_of_now(table, counts) for table in unlike)], set()
    if unlike:
        own = {column.name for table in unlike for column in table.columns}
        touching = {
            p for p in wanted if any(v != ANY and c.name in own for c, v in zip(counts.columns, p, strict=True))
        }
        yield same, touching - {p for table in unlike for p in _expressed(table, table.shown, counts.columns)}


def _of_now(table: Disclosed, counts: Counts) -> Disclosed:
    """Return a table as if it had been told with the numbers of now."""
    wanted = [widened(counts.columns, pattern, table.columns) for pattern in table.shown]
    numbers = (matrix(counts.columns, wanted) @ vector(counts)).tolist()
    return replace(table, shown=dict(zip(table.shown, numbers, strict=True)))


def _without(table: Disclosed, changed: set[Pattern]) -> Disclosed:
    """Return a table without the patterns whose change tells of few persons."""
    shown = {pattern: n for pattern, n in table.shown.items() if pattern not in changed}
    return replace(table, shown=shown, hidden=tuple(sorted({*table.hidden, *table.shown} - {*shown})))


def _coarser(wanted: Iterable[Pattern], ledger: Sequence[Told], columns: Sequence[Column]) -> Iterator[set[Pattern]]:
    """Yield what to hide besides: nothing, what was hidden before, all cells as well, and all but the total."""
    yield set()
    if not ledger:
        return
    before = {p for e in ledger for p in _expressed(e.table, dict.fromkeys(e.table.hidden, 0), columns)}
    yield before
    cells = {pattern for pattern in wanted if ANY not in pattern}
    yield before | cells
    yield {pattern for pattern in wanted if set(pattern) != {ANY}}


def check_differences(new: Told, ledger: Sequence[Told]) -> None:
    """Raise PrivacyError if a new table gives away a small number together with those of the ledger."""
    blocks = _blocks([*ledger, new])
    columns = together([table.columns for block in blocks for table in block.tables])
    if len(blocks) < 2 and len(columns) == len(new.table.columns):
        return  # suppress has proved it
    check_size(columns)
    cells = int(np.prod([len(column.levels) for column in columns]))
    if cells * len(blocks) > MOST_NUMBERS:
        raise PrivacyError(
            f"found {len(blocks)} different tables told, of {counted(cells, 'cell')} each, expected at most "
            f"{MOST_NUMBERS:,} cells together: more cannot be proved to be safe; tell nothing more of these columns"
        )
    k = max(table.k for block in blocks for table in block.tables)
    _Attack(columns, blocks, k).run()


@dataclass(frozen=True)
class _Block:
    """Tables of the same persons."""

    question: str
    tables: tuple[Disclosed, ...]
    grids: Mapping[str, str]

    def shown(self, columns: Sequence[Column]) -> dict[Pattern, int]:
        return {p: n for table in self.tables for p, n in _shown(table, columns).items()}

    def hidden(self, columns: Sequence[Column]) -> set[Pattern]:
        found = {widened(columns, p, table.columns) for table in self.tables for p in table.hidden}
        return found - set(self.shown(columns))


def _blocks(entries: Sequence[Told]) -> list[_Block]:
    """Return the tables by the persons they are of, in the order in which they were told first."""
    found: dict[str, list[Told]] = {}
    for place, entry in enumerate(entries):
        clash = [e for e in found.get(entry.people, []) if not _alike(e.table, entry.table)]
        found.setdefault(f"{entry.people} {place}" if clash else entry.people, []).append(entry)
    return [
        _Block(held[-1].question, tuple(e.table for e in held), {c: g for e in held for c, g in e.grids.items()})
        for held in found.values()
    ]


def _alike(one: Disclosed, other: Disclosed) -> bool:
    columns = together([one.columns, other.columns])
    known = _shown(one, columns)
    return all(known.get(p, n) == n for p, n in _shown(other, columns).items())


def _agrees(table: Disclosed, counts: Counts) -> bool:
    told = _shown(table, together([counts.columns, table.columns]))
    wanted = list(told)
    return bool((matrix(counts.columns, wanted) @ vector(counts) == list(told.values())).all())


def _shown(table: Disclosed, columns: Sequence[Column]) -> dict[Pattern, int]:
    return {widened(columns, p, table.columns): n for p, n in table.shown.items()}


def _expressed(table: Disclosed, numbers: Mapping[Pattern, int], columns: Sequence[Column]) -> dict[Pattern, int]:
    """Return the patterns of a table that need no other columns than these."""
    names = {column.name for column in columns}
    beside = [place for place, column in enumerate(table.columns) if column.name not in names]
    return {
        widened(columns, pattern, table.columns): n
        for pattern, n in numbers.items()
        if all(pattern[place] == ANY for place in beside)
    }


def _is_small(change: int, k: int, *, same: bool) -> bool:
    """Return whether a change tells of few persons; under another question even none says something of everybody."""
    return abs(change) < k and not (same and change == 0)


class _Attack:
    """What somebody can learn who holds all tables: numbers of each block, and their changes between blocks."""

    def __init__(self, columns: Sequence[Column], blocks: Sequence[_Block], k: int) -> None:
        from scipy.sparse import block_diag, csr_array  # needs a while to load

        self.columns, self.blocks, self.k = columns, blocks, k
        facts = [block.shown(columns) for block in blocks]
        self.facts = facts
        sums = [csr_array(matrix(columns, list(known)).astype(float)) for known in facts]
        numbers = np.array([n for known in facts for n in known.values()], dtype=float)
        self.cells = sums[0].shape[1]
        self.upper = float(numbers.max(initial=0) + 2 * k)
        self.known = Known(block_diag(sums, format="csr"), numbers, numbers)
        for place, (before, after) in enumerate(pairwise(facts)):
            kept = [c for c in columns if not self._is_moved(c, place)]
            grown = self._with_step(place, before, after, kept)
            # If no archive that only grew (or shrank) has these numbers, nobody can assume that it did.
            if solve(np.zeros(self.cells * len(blocks)), grown, self.upper, whole=self.cells) is not None:
                self.known = grown

    def run(self) -> None:
        """Raise PrivacyError at the first number that is known too well."""
        from scipy.sparse import csr_array, vstack

        last = len(self.blocks) - 1
        targets: list[tuple[Sparse, str]] = []
        for place, block in enumerate(self.blocks):
            hidden = sorted(block.hidden(self.columns))
            if hidden:
                targets += [(self._at(place, hidden), "hidden")]
        pairs = dict.fromkeys([*((n, n + 1) for n in range(last)), *((n, last) for n in range(last))])
        for before, after in pairs:
            same = self.blocks[before].question == self.blocks[after].question
            wanted = sorted({*self._patterns(before), *self._patterns(after)})
            rows = self._at(after, wanted) - self._at(before, wanted)
            targets += [(rows, "same" if same else "other")]
        if not targets:
            return  # all is told, of one version
        sums = csr_array(vstack([rows for rows, _ in targets], format="csr"))
        kinds = [kind for rows, kind in targets for _ in range(rows.shape[0])]
        self._narrow(sums, kinds)

    def _narrow(self, sums: Sparse, kinds: Sequence[str]) -> None:
        ranges = Ranges(sums)
        for place, kind in enumerate(kinds):
            goal = sums[[place]].toarray()[0]
            for sign in (1.0, -1.0):
                if ranges.width()[place] < self.k:
                    witness = solve(sign * goal, self.known, self.upper, whole=len(goal))
                    if witness is None:
                        raise PrivacyError("found tables of the same persons that contradict each other in the ledger")
                    ranges.add(witness)
            low, high = int(ranges.low[place]), int(ranges.high[place])
            if high - low >= self.k:
                continue
            if kind == "hidden" or not _is_known_safe(low, high, self.k, same=kind == "same"):
                what = "hidden number" if kind == "hidden" else "change"
                raise PrivacyError(
                    f"found that this table and those told before narrow a {what} down to less than {self.k} persons, "
                    "expected that they do not; send the earlier offer again, ask for fewer columns, or wait until "
                    "more persons have come"
                )

    def _is_moved(self, column: Column, place: int) -> bool:
        """Return whether a column was measured in other samples for the next block."""
        one, other = (self.blocks[n].grids.get(column.name) for n in (place, place + 1))
        return None not in (one, other) and one != other

    def _patterns(self, place: int) -> set[Pattern]:
        return {*self.facts[place], *self.blocks[place].hidden(self.columns)}

    def _at(self, place: int, wanted: Sequence[Pattern]) -> Sparse:
        """Return the sums of patterns in one block as rows over the numbers of all blocks."""
        from scipy.sparse import csr_array, hstack

        rows = csr_array(matrix(self.columns, wanted).astype(float))
        empty = csr_array((len(wanted), self.cells))
        return hstack([rows if n == place else empty for n in range(len(self.blocks))], format="csr")

    def _with_step(
        self, place: int, before: dict[Pattern, int], after: dict[Pattern, int], kept: Sequence[Column]
    ) -> Known:
        """Return what is known if each cell of some columns only grew, or only shrank, until the next block."""
        from scipy.sparse import csr_array, hstack, vstack

        wanted = [widened(self.columns, cell, kept) for cell in cells_of(kept)]
        inside = [n for n, column in enumerate(self.columns) if column not in kept]
        sign = _sign({p: n for p, n in before.items() if all(p[at] == ANY for at in inside)}, after)
        if not sign:
            return self.known
        one, empty = csr_array(matrix(self.columns, wanted) * float(sign)), csr_array((len(wanted), self.cells))
        parts = {place: -one, place + 1: one}
        step = hstack([parts.get(n, empty) for n in range(len(self.blocks))])
        ends = [np.full(len(wanted), end) for end in (0.0, np.inf)]
        low, high = (np.concatenate(pair) for pair in zip((self.known.low, self.known.high), ends, strict=True))
        return Known(vstack([self.known.rows, step], format="csr"), low, high)


def _sign(before: dict[Pattern, int], after: dict[Pattern, int]) -> int:
    """Return 1 where an archive seems to have grown, -1 where it seems to have shrunk, 0 where it did both."""
    changes = [after[p] - n for p, n in before.items() if p in after]
    if all(change >= 0 for change in changes):
        return 1
    return -1 if all(change <= 0 for change in changes) else 0


def _is_known_safe(low: int, high: int, k: int, *, same: bool) -> bool:
    return low >= k or high <= -k or (same and low == high == 0)

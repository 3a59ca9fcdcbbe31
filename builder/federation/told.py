"""The private ledger of a site: what it has told of whom, which specs it has seen, and which documents it has made."""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from builder.errors import LayoutError, PrivacyError
from builder.federation.differencing import Told, tell
from builder.federation.documents import (
    Document,
    Levels,
    Marks,
    Plan,
    Receipt,
    Request,
    Row,
    Spec,
    Table,
    Whose,
    digest,
    with_article,
)
from builder.federation.tables import Column, Counts, Disclosed, matrix, part, vector
from builder.model.canonical import canonical_json

SPLIT: Final = "split"
CANDIDATES: Final = "candidates: "
"""How the ledger's names of tables begin that count candidates."""


@dataclass
class Ledger:
    """A site's memory.

    Parameters
    ----------
    told
        Name of a table to what was told of it.
    seen
        Specs, plans, marks and requests of other sites that were accepted.
    made
        Digest to kind of each document that this site made.
    receipts
        Digest of a plan to the newest receipt under it.
    """

    path: Path
    told: dict[str, list[Told]] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    text: bytes = b""

    @staticmethod
    def open(path: str) -> "Ledger":
        """Return the ledger in a file, or a new one. Raises LayoutError."""
        place = Path(path)
        if not place.exists():
            return Ledger(place)
        try:
            text = place.read_bytes()
            facts = json.loads(text)
            told = {name: [_told(entry) for entry in entries] for name, entries in facts["told"].items()}
            receipts = {plan: Receipt.model_validate(made) for plan, made in facts.get("receipts", {}).items()}
            return Ledger(place, told, facts["seen"], facts["made"], receipts, text)
        except (ValueError, KeyError, TypeError):
            raise LayoutError(
                f"{place}: found no ledger that can be read, expected what this site has told; bring it back from a "
                "backup: without it nobody knows what may still be told"
            ) from None

    def keep(self) -> None:
        """Write the ledger for its owner alone.

        Raises
        ------
        LayoutError
            If another command has written it since it was read: what that one told would be forgotten.
        """
        told = {name: [_entry(entry) for entry in entries] for name, entries in self.told.items()}
        receipts = {plan: made.model_dump(mode="json") for plan, made in self.receipts.items()}
        data = canonical_json({"told": told, "seen": self.seen, "made": self.made, "receipts": receipts})
        with self.path.with_name(self.path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.path.read_bytes() if self.path.exists() else b"") != self.text:
                raise LayoutError(
                    f"{self.path}: found that another command of this site has told something since this one began, "
                    "expected one at a time; run it again"
                )
            beside = self.path.with_name(self.path.name + ".new")
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        self.text = data

    def memory(self) -> dict[str, list[Told]]:
        """Return a copy of what was told."""
        return {name: list(entries) for name, entries in self.told.items()}

    def accept(self, document: Spec | Plan | Marks | Request, *, where: str) -> None:
        """Note what came from outside. Raises LayoutError for one that is older than another that was accepted."""
        giver = document.site if isinstance(document, Marks | Request) else ""
        name = f"{document.kind} {document.federation} {giver}".rstrip()
        known = self.seen.get(name)
        own = {"sequence": document.sequence, "digest": digest(document)}
        if known is not None and (
            own["sequence"] < known["sequence"]
            or (own["sequence"] == known["sequence"] and own["digest"] != known["digest"])
        ):
            raise LayoutError(
                f"{where}: found {document.kind} {document.sequence} of {document.federation}, expected a later one "
                f"than number {known['sequence']}, which this site has accepted; ask {giver or 'the coordinator'} for "
                "the newest"
            )
        self.seen[name] = own

    def note(self, document: Document) -> None:
        """Note a document that this site made, so that nothing else is approved."""
        self.made[digest(document)] = document.kind
        if isinstance(document, Receipt):
            self.receipts[document.plan] = document

    def check_made(self, document: Document, *, where: str) -> None:
        """Raise PrivacyError if this site did not make the document."""
        if digest(document) not in self.made:
            raise PrivacyError(
                f"{where}: found {with_article(document.kind)} that this site did not make, expected what builder site "
                "wrote here; make it again, and approve that file"
            )

    def sequence(self, kind: str) -> int:
        """Return the number of the next document of a kind."""
        return 1 + sum(own == kind for own in self.made.values())


@dataclass(frozen=True)
class Teller:
    """Tells tables of one set of persons.

    Parameters
    ----------
    of
        Whom they count. Newcomers are some of everybody, and are judged together with them; candidates are not.
    grids
        Columns that are measured in stored samples, and what decides these.
    """

    ledger: Ledger
    k: int
    people: str
    question: str
    of: Whose = "everybody"
    grids: Mapping[str, str] = field(default_factory=dict)

    def table(
        self, name: str, counts: Counts, asked: Sequence[Sequence[str]], *, known: Disclosed | None = None
    ) -> Table:
        """Return what may be told, and note it. ``known`` is what other tables have told of these same persons."""
        before = [*self.ledger.told.get(self._name("total"), ()), *self._beside(counts)]
        before += [] if known is None else [Told(self.people, self.question, known)]
        grids = {column.name: self.grids[column.name] for column in counts.columns if column.name in self.grids}
        told = tell(counts, self.k, people=self.people, question=self.question, asked=asked, ledger=before, grids=grids)
        self.note(name, told)
        return as_table(name, told.table, self.of)

    def note(self, name: str, told: Told) -> None:
        """Note in the ledger what was told, or what follows from it."""
        own = self.ledger.told.setdefault(self._name(name), [])
        if told not in own:
            own.append(told)

    def _name(self, name: str) -> str:
        return f"{CANDIDATES}{name}" if self.of == "candidates" else name

    def _beside(self, counts: Counts) -> list[Told]:
        """Return what was told of a column of this table, of columns that were crossed with those, and so on.

        Of the split alone it is what a table says of the splits: nearly every table of a receipt is told by split, and
        all of them at once would be too many to prove anything.
        """
        told = self.ledger.told.items()
        alike = [own for name, own in told if name.startswith(CANDIDATES) == (self.of == "candidates")]
        entries = [(entry, {c.name for c in entry.table.columns}) for entry in chain.from_iterable(alike)]
        own, reached = {c.name for c in counts.columns}, set[str]()
        while own != reached:
            reached = set(own)
            own.update(*(names for _, names in entries if names & (reached - {SPLIT})))
        return [
            entry if names & (own - {SPLIT}) else replace(entry, table=part(entry.table, {SPLIT}))
            for entry, names in entries
            if names & own
        ]


@dataclass(frozen=True)
class Repeater:
    """Tells the tables of an earlier receipt again, where those of the persons of now would tell of few.

    Nothing new leaves but that each number is off by fewer than ``k``, which is checked.
    """

    earlier: Receipt
    k: int

    def table(
        self, name: str, counts: Counts, asked: Sequence[Sequence[str]], *, known: Disclosed | None = None
    ) -> Table:
        """Return the earlier table of this name. Raises PrivacyError if it is too far off, or there is none."""
        tables = {table.name: table for table in (self.earlier.strata, *self.earlier.tables)}
        columns = [Levels(name=column.name, levels=list(column.levels)) for column in counts.columns]
        if name not in tables or tables[name].columns != columns:
            raise PrivacyError(f"{name}: found nothing of it in the receipt before, expected what could be told again")
        shown = disclosed(tables[name], self.k).shown
        now = (matrix(counts.columns, list(shown)) @ vector(counts)).tolist()
        if any(n < self.k or abs(n - own) >= self.k for n, own in zip(shown.values(), now, strict=True)):
            raise PrivacyError(f"{name}: found numbers of the receipt before that are off by {self.k} or more")
        return tables[name]


def as_table(name: str, told: Disclosed, of: Whose = "everybody") -> Table:
    """Return a table as documents write it."""
    rows = {**dict(told.shown), **dict.fromkeys(told.hidden)}
    return Table(
        name=name,
        of=of,
        columns=[Levels(name=column.name, levels=list(column.levels)) for column in told.columns],
        rows=[Row(levels=list(pattern), persons=rows[pattern]) for pattern in sorted(rows)],
    )


def disclosed(table: Table, k: int) -> Disclosed:
    """Return a table of a document as the computations take it."""
    columns = tuple(Column(column.name, tuple(column.levels)) for column in table.columns)
    shown = {tuple(row.levels): row.persons for row in table.rows if row.persons is not None}
    hidden = tuple(tuple(row.levels) for row in table.rows if row.persons is None)
    return Disclosed(columns, k, shown, hidden)


def _entry(told: Told) -> dict[str, Any]:
    table = as_table("told", told.table).model_dump(mode="json")
    grids = {"grids": dict(told.grids)} if told.grids else {}
    return {"people": told.people, "question": told.question, "k": told.table.k, "table": table, **grids}


def _told(entry: dict[str, Any]) -> Told:
    table = disclosed(Table.model_validate(entry["table"]), entry["k"])
    return Told(entry["people"], entry["question"], table, dict(entry.get("grids", {})))

"""Gather whom the archive names, and judge the text of the cohort by it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from builder.deid.gate import Gate
from builder.deid.identifiers import NOTHING_KNOWN, Identifiers, identifiers_of, is_like_a_name, parts_of
from builder.deid.leaks import Canaries, values_to_find
from builder.deid.text import ordinary_words
from builder.deid.writing import UNSPACED_RUN, fold, unspell
from builder.headers.vendors import VENDORS
from builder.model.cleared import Policy, policy_of
from builder.model.tables import IDENTITY
from builder.persons import Persons
from builder.planning.inventory import Inventory

TRUE_AGE = "true_age_years"
"""Private column with ages before ``deid.anonymity`` made bands of them: ages above 89 must be known to hide times."""

NOBODYS = frozenset({"anonymous", "anonymized", "anonymised", "unknown", "none", "test", "phantom", "volunteer"})
"""Words that replace the name of a person whose name was removed earlier."""

_FILLERS = """
a all an and any are as assigned at available be by for from given he her his in is it its no none nor not of on or
other per pending provided read record recorded see she specified stated the their this to unassigned unspecified
via was we were with without
"""
FILLERS = frozenset(_FILLERS.split())
"""Words of sentences, which stand in fields for names as well: "NOT^STATED", "read by Dr. X". The program's own texts
say such pairs of words, too, and would stop every build of such an archive at its end."""

_WORD = re.compile(r"[^\W\d_]+")
_OF_PERSONS = (
    *("patient_id", "issuer_of_patient_id", "study_uid", "source", "series_uid", "patient_birth_date"),
    "accession_number",
    *("device_serial_number", "institution_name", IDENTITY.name),
)


@dataclass(frozen=True)
class Roster:
    """The persons whom the archive names, read only when a text must be compared with them.

    Parameters
    ----------
    own_words
        The words of the spec, which identify nobody.
    annotations
        INSTANCES rows of annotation objects and files.
    """

    own_words: frozenset[str]
    persons: Persons
    annotations: pa.Table
    inventory: Inventory
    leaving: frozenset[str] = frozenset()
    """Columns of the inventory whose values leave, because the profile of a release retains them."""

    @cached_property
    def by_person(self) -> Mapping[str, Identifiers]:
        """Map each person to the identifiers of that person and of the staff involved."""
        found: dict[str, Identifiers] = {}
        for rows in self._distinct():
            for number, person in enumerate(self.persons.keys_of(rows)):
                if person is not None:
                    own = identifiers_of(rows.slice(number, 1))
                    found[person] = found.get(person, NOTHING_KNOWN) | own
        return found

    @cached_property
    def words(self) -> frozenset[str]:
        """Return every word of any person's name."""
        found: set[str] = set()
        for known in self.by_person.values():
            found |= known.names | {part for pair in known.phrases for part in pair}
            found |= {word for whole in known.wholes for word in _WORD.findall(whole)}
        return frozenset(found)

    @cached_property
    def few_digits(self) -> frozenset[str]:
        """Return the identifiers of any person that are too short for ``numbers``: "4711"."""
        return frozenset(n for i in self.by_person.values() for n in i.numbers if n.isdigit() and len(n) < 6)

    @cached_property
    def numbers(self) -> Canaries:
        """Return every other identifier of any person."""
        return Canaries.of(n for i in self.by_person.values() for n in i.numbers)

    def may_be_named_in(self, text: str) -> bool:
        """Return whether a text may name anyone at all; this quick check avoids comparing each row with its person."""
        folded = fold(text)
        if UNSPACED_RUN.search(folded):
            return True
        said = (*_WORD.findall(folded), *_WORD.findall(unspell(folded)))
        if not self.words.isdisjoint(said) or not self.few_digits.isdisjoint(re.findall(r"\d+", folded)):
            return True
        return self.numbers.count_in(text.encode()) > 0

    @cached_property
    def canaries(self) -> Canaries:
        """Return the identifiers of the whole archive, except words of the spec and of closed vocabularies."""
        own = {word.lower() for word in self.own_words} | NOBODYS | FILLERS
        own |= {word for name, _ in VENDORS for word in (name.lower(), *name.lower().split())}
        return Canaries.of(self._values(), names=self._names(), ordinary=ordinary_words() | own)

    def _values(self) -> Iterator[str]:
        yield from sorted(self.persons.spellings)
        yield from values_to_find(self.annotations, leaving=self.leaving)
        for rows in self._distinct():
            yield from values_to_find(rows, leaving=self.leaving)
            if "institution_name" not in self.leaving:
                yield from (v for v in rows.column("institution_name").unique().to_pylist() if v)
            for cell in rows.column(IDENTITY.name).unique().to_pylist():
                names, others = parts_of(cell, leaving=self.leaving)
                yield from others
                yield from (name for name in names if len(re.findall(r"[^\W_]+", name)) == 1)

    def _names(self) -> Iterator[str]:
        for rows in self._distinct():
            for cell in rows.column(IDENTITY.name).unique().to_pylist():
                yield from parts_of(cell)[0]
        yield from filter(is_like_a_name, sorted(self.persons.spellings))

    def _distinct(self) -> Iterator[pa.Table]:
        """Yield the distinct combinations of identifying columns, chunk by chunk."""
        wanted = list(_OF_PERSONS)
        tables = [lambda n=n: self.inventory.chunk(n, columns=wanted) for n in range(len(self.inventory.chunks))]
        later = [lambda n=n: self.inventory.headers_read_later(n, columns=wanted) for n in self.inventory.later]
        reads: list[Callable[[], pa.Table]] = [*tables, *later, lambda: self.inventory.annotations(columns=wanted)]
        for read in reads:
            yield read().group_by(wanted).aggregate([])


def clear_cohort(cohort: pa.Table, gate: Gate, roster: Roster) -> pa.Table:
    """Return the cohort with every publishable text of it judged; each row is compared with its own person.

    Text of clinical tables is compared with everybody else of the archive, too.
    """
    crossing = [f for f in cohort.schema if policy_of(f.name, gate.declared) is not None]
    names = [f.name for f in crossing if _is_text(f.type)]
    people = cohort.column("person_key").to_pylist()
    judged = gate.table(
        cohort.select(names),
        where="cohort",
        known=lambda row: roster.by_person.get(people[row], NOTHING_KNOWN),
        suspect=roster.may_be_named_in,
    )
    for name in names:
        place = cohort.schema.get_field_index(name)
        values = judged.column(name)
        if policy_of(name, gate.declared) is Policy.DECLARED and pa.types.is_string(values.type):
            values = _of_nobody(name, values, gate, roster)
        cohort = cohort.set_column(place, cohort.schema.field(place), values)
    return cohort


def _of_nobody(column: str, values: pa.ChunkedArray, gate: Gate, roster: Roster) -> pa.ChunkedArray:
    """Return the values without those that identify another person, which would stop the build at its end."""
    doubtful = {v for v in values.unique().to_pylist() if v is not None and not gate.words.has(v)}
    named = {value for value in doubtful if roster.canaries.count_in(value.encode())}
    if not named:
        return values
    kept = values.to_pylist()
    for row, value in enumerate(kept):
        if value in named:
            gate.dropped[column, value] += 1
            kept[row] = None
    return pa.chunked_array([kept], values.type)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)))

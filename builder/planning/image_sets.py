"""Choose the images of every case: a reference for each case, and for each of the other images the series that fits."""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from builder.cohort import CaseImage, Cohort, Decisions, bare_image, mask_of, preferred, require_clinical
from builder.errors import CaseError, Reason, counted
from builder.model.expression import compile as compile_expression
from builder.model.keyed import Key
from builder.model.linking import How
from builder.model.sorting import ordered
from builder.planning.link import Link
from builder.planning.registrations import Placement, Registrations
from builder.planning.rows import CandidateRow, rows_of
from builder.planning.set_columns import (
    LABELLED,
    PARTNERS,
    labels_of,
    links_of,
    links_of_registrations,
    partners_of,
    with_images,
    with_label_columns,
)
from builder.planning.visits import ImageSet, day_of, together
from builder.spec import DatasetSpec
from builder.spec.columns import columns_of_images

IMAGES_RULE = "images"
"""The rule under which a case that lacks an image is listed, and a series that no case takes."""

STRENGTH = {
    How.SOP: 0,
    How.SERIES: 1,
    How.NAME: 1,
    How.IMAGE: 1,
    How.FRAME_OF_REFERENCE: 2,
    How.STUDY: 3,
    How.PERSON: 4,
}
"""How strong a reference is; a label goes to the image that it refers to most strongly."""


def select_sets(
    candidates: pa.Table,
    spec: DatasetSpec,
    links: Mapping[str, Sequence[Link]],
    registrations: Registrations,
    *,
    key: Key,
) -> tuple[pa.Table, dict[str, list[Link]]]:
    """Decide about every candidate of a dataset whose cases have several images.

    Parameters
    ----------
    candidates
        As for ``builder.cohort.select_cohort``, with ``stack_key``, ``frame_of_reference_key`` and the true date.
    links
        Maps the ``stack_key`` of each candidate to what each label found for it.
    registrations
        What places images whose frame of reference is not that of their reference.
    key
        Names the cases of several visits by the reference stacks of all visits.

    Returns
    -------
    tuple
        The candidates with the columns of a cohort, and the links of every case by its key. ``included`` marks the
        reference of each case. ``image_name`` and ``serves`` say as which image and in which cases a row is used,
        ``partners`` and ``label_images`` which rows and labels a case has, and ``present.NAME`` and ``NAME.column``
        what is known of its other images.

    Raises
    ------
    SpecError
        For an expression that names unknown columns or compares unlike types.
    """
    choice = _Choice(ordered(candidates, ["series_key", "stack"]), spec, links, registrations)
    return choice.decide(key)


class _Choice:
    """The candidates with what has been decided about them so far."""

    def __init__(
        self,
        table: pa.Table,
        spec: DatasetSpec,
        links: Mapping[str, Sequence[Link]],
        registrations: Registrations,
    ) -> None:
        self.registrations = registrations
        self.table, self.spec, self.options = table, spec, spec.cohort
        self.ledger = Decisions(table.num_rows)
        self.rows = rows_of(table, CandidateRow)
        self.first = next(iter(self.options.images))
        self.links = [links.get(row.stack_key, ()) for row in self.rows]
        self.matches = {name: mask_of(image.select, table).values for name, image in self.options.images.items()}
        self.ranks = {name: _ranks(table, image.prefer) for name, image in self.options.images.items()}
        self.of_person: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            self.of_person.setdefault(row.person_key, []).append(number)

    def decide(self, key: Key) -> tuple[pa.Table, dict[str, list[Link]]]:
        """Return the cohort and the links of its cases."""
        reference = self.options.reference
        self._before()
        sets = [s for row in range(len(self.rows)) if (s := self._set_of(row)) is not None]
        if self.options.visits is not None:
            sets = together(self._one_per(sets, key=day_of), self.options, self.rows, self.ledger, self.registrations)
        sets = [s for s in sets if self._label(s, s.rows[reference])]
        table = with_images(self.table, self.spec, {s.rows[reference]: s.rows for s in sets})
        for rule in self.options.rules:
            if _names_images(rule.keep, table.schema, self.options):
                self._apply(rule.name, rule.keep, table, sets)
        if self.options.visits is None:
            sets = self._one_per(sets, key=self._group_of)
        else:
            sets = [s for s in sets if self.ledger.included[s.rows[reference]]]
        self._leftovers(sets)
        return self._finished(sets, table, key)

    def _before(self) -> None:
        """Apply what is decided before images are put together; rules on bare names look at the reference."""
        table, ledger, reference = self.table, self.ledger, self.first
        for row in range(len(self.rows)):
            if not any(matches[row] for matches in self.matches.values()):
                ledger.refuse(row, "image", Reason.NOT_SELECTED)
        ledger.exclude_where(table, "usable_reason", "geometry", "usable_detail")
        if self.options.clinical == "required":
            require_clinical(table, ledger)
        schema = columns_of_images(table.schema, self.options.partners)
        for rule in self.options.rules:
            if not _names_images(rule.keep, schema, self.options):
                kept = mask_of(rule.keep, table).values
                for row, keep in enumerate(kept):
                    if self.matches[reference][row] and not keep:
                        ledger.refuse(row, rule.name, Reason.COHORT_RULE)

    def _set_of(self, row: int) -> ImageSet | None:
        """Return the images that belong to a row as reference, of one visit; None if it is no reference, or is out."""
        reference = self.first
        if not self.matches[reference][row] or not self.ledger.included[row]:
            return None
        found = ImageSet(reference, {reference: row})
        for name, image in self.options.images.items():
            if name == reference:
                continue
            chosen = self._partner(name, image, found)
            if not isinstance(chosen, CaseError):
                found.rows[name] = chosen
            elif image.required:
                self.ledger.refuse(row, IMAGES_RULE, chosen.reason, chosen.detail)
                return None
        return found

    def _partner(self, name: str, image: CaseImage, found: ImageSet) -> int | CaseError:
        """Return the row of one image of a case, or why there is none."""
        reference = self.rows[found.rows[found.reference]]
        near = [
            row
            for row in self.of_person[reference.person_key]
            if self.matches[name][row] and self.ledger.included[row] and row not in found.rows.values()
            and _is_near(reference, self.rows[row], image.within_days)
        ]  # fmt: skip
        if near and image.aligned == "registration" and image.registrar is None:
            return self._placed(name, image, found, near)
        fitting = [row for row in near if _fits(reference, self.rows[row], image.aligned)]
        if fitting:
            return min(fitting, key=lambda row: self._order(name, row))
        if not near:
            where = "in the study" if image.within_days is None else f"within {counted(image.within_days, 'day')}"
            detail = f"image {name}: found no usable series {where} that it selects, expected one"
            return CaseError(Reason.IMAGE_MISSING, detail)
        if image.aligned == "frame" and reference.frame_of_reference_key is None:
            detail = (
                f"image {name}: found a reference that states no frame of reference, as image files never do, expected "
            )
            detail += "another proof that the images fit: state aligned: grid, registration or assumed, or none"
            return CaseError(Reason.IMAGE_NOT_ALIGNED, detail)
        proof = "frame of reference" if image.aligned == "frame" else "shape"
        detail = f"image {name}: found {len(near)} series, none of them in the reference's {proof}, expected one"
        return CaseError(Reason.IMAGE_NOT_ALIGNED, detail)

    def _placed(self, name: str, image: CaseImage, found: ImageSet, near: Sequence[int]) -> int | CaseError:
        """Return the row of an image that a registration places, and keep where it lies; or why there is none."""
        reference = self.rows[found.rows[found.reference]]
        placed = {row: self.registrations.place(name, image, self.rows[row], reference) for row in near}
        fitting = {row: placement for row, placement in placed.items() if isinstance(placement, Placement)}
        if fitting:
            best = min(fitting, key=lambda row: self._order(name, row))
            found.placements[name] = fitting[best]
            return best
        first = placed[min(near, key=lambda row: self._order(name, row))]
        assert isinstance(first, CaseError)
        return first

    def _strength(self, name: str, row: int) -> int:
        """Return how strongly any label that may lie on this image refers to a row; less is stronger."""
        mine = (x for x in self.links[row] if x.found and bare_image(self.spec.labels[x.label].on or name) == name)
        return min((STRENGTH.get(How(x.how), 9) for x in mine), default=9)

    def _label(self, found: ImageSet, row: int) -> bool:
        """Give each label its image; return whether the case stays."""
        missing = []
        for label, reader in self.spec.labels.items():
            held = [(n, x) for n, r in found.rows.items() for x in self.links[r] if x.label == label and x.found]
            if reader.on is not None:
                held = [(n, x) for n, x in held if n == reader.on]
            best = min((STRENGTH.get(How(x.how), 9) for _, x in held), default=9)
            held = [(n, x) for n, x in held if STRENGTH.get(How(x.how), 9) == best]
            if len(held) > 1:
                names = " and ".join(n for n, _ in held)
                detail = f"label {label}: found objects for the images {names}, expected one: state labels.{label}.on"
                self.ledger.refuse(row, "labels", Reason.LABEL_AMBIGUOUS, detail)
                return False
            if held:
                found.links[label] = held[0]
            else:
                missing.append(label)
        if missing and self.options.labels == "required":
            detail = "no object found for " + ", ".join(missing)
            self.ledger.refuse(row, "labels", Reason.LABEL_MISSING, detail)
            return False
        return True

    def _apply(self, name: str, keep: str, table: pa.Table, sets: Sequence[ImageSet]) -> None:
        """Apply a rule that names other images to the cases."""
        kept = mask_of(keep, table).values
        for found in sets:
            row = found.rows[found.reference]
            if not kept[row]:
                self.ledger.refuse(row, name, Reason.COHORT_RULE)

    def _group_of(self, row: CandidateRow) -> str:
        """Return the key of the study or person that makes one case, as ``case`` says; that of the row for series."""
        return {"study": row.study_key, "person": row.person_key}.get(self.options.case, row.stack_key)

    def _one_per(self, sets: Sequence[ImageSet], *, key: Callable[[CandidateRow], object]) -> list[ImageSet]:
        """Keep one set of each group of references with one key."""
        reference, case = self.first, self.options.case
        left = [s for s in sets if self.ledger.included[s.rows[s.reference]]]
        order = sorted(left, key=lambda s: self._order(reference, s.rows[reference]))
        first: dict[object, int] = {}
        rule = f"one_per_{case}" if self.options.visits is None else "one_per_visit"
        for found in order:
            row = found.rows[reference]
            chosen = first.setdefault(key(self.rows[row]), row)
            if chosen != row:
                self.ledger.refuse(row, rule, Reason.ONE_PER_RULE, self._why(reference, row, chosen))
        return [s for s in left if self.ledger.included[s.rows[reference]]]

    def _order(self, name: str, row: int) -> tuple[int, int]:
        return self._strength(name, row), self.ranks[name][row]

    def _why(self, name: str, row: int, chosen: int) -> str:
        """Say why another row was taken as an image."""
        prefer = self.options.images[name].prefer
        columns = [c.removeprefix("-") for c in prefer if c.removeprefix("-") not in ("series_key", "stack")]
        if self._strength(name, chosen) < self._strength(name, row):
            return f"image {name}: a label refers to another series"
        one, other = (self.table.select(columns).slice(r, 1).to_pylist() for r in (row, chosen))
        by = ", ".join(prefer)
        return f"image {name}: " + (
            f"a tie by {by} with the series that was taken; its key decided" if one == other
            else f"another series comes first by {by}"
        )  # fmt: skip

    def _leftovers(self, sets: Sequence[ImageSet]) -> None:
        """Exclude the rows that fit an image and that no case takes."""
        taken = {row for s in sets for row in s.rows.values()}
        days = {day_of(self.rows[row]) for row in taken}
        chosen: dict[tuple[str, str], int] = {}
        for found in sets:
            person = self.rows[found.rows[found.reference]].person_key
            for name, row in found.rows.items():
                chosen.setdefault((person, bare_image(name)), row)
        for row in range(len(self.rows)):
            if row in taken or not self.ledger.included[row]:
                continue
            person = self.rows[row].person_key
            name = next(n for n, matches in self.matches.items() if matches[row])
            other = chosen.get((person, name))
            apart = self.options.visits is not None and day_of(self.rows[row]) not in days
            if other is None or apart:
                detail = f"image {name}: its {'visit makes no case' if apart else 'case is not in the cohort'}"
                self.ledger.refuse(row, IMAGES_RULE, Reason.IMAGE_UNUSED, detail)
            else:
                self.ledger.refuse(row, IMAGES_RULE, Reason.ONE_PER_RULE, self._why(name, row, other))

    def _name(self, found: ImageSet, key: Key) -> str:
        """Return the name of a case: that of its reference stack, or one made of the references of all visits."""
        stacks = [self.rows[row].stack_key for name, row in found.rows.items() if bare_image(name) == self.first]
        return stacks[0] if self.options.visits is None else key.name("case", *stacks)

    def _finished(self, sets: Sequence[ImageSet], table: pa.Table, key: Key) -> tuple[pa.Table, dict[str, list[Link]]]:
        """Return the candidates with the columns of a cohort, and the links of every case by its name."""
        count, reference = table.num_rows, self.options.reference
        stacks = [row.stack_key for row in self.rows]
        names: list[str | None] = [None] * count
        serves: list[list[str]] = [[] for _ in range(count)]
        by_reference = {s.rows[reference]: s for s in sets}
        keys = stacks.copy()
        for row, found in by_reference.items():
            keys[row] = self._name(found, key)
        for row, found in by_reference.items():
            for name, used in found.rows.items():
                names[used] = names[used] or bare_image(name)
                serves[used].append(keys[row])
        table = self.ledger.append_to(table)
        included = [row in by_reference for row in range(count)]
        table = table.set_column(table.schema.get_field_index("included"), "included", pa.array(included, pa.bool_()))
        table = table.set_column(table.schema.get_field_index("case_key"), "case_key", pa.array(keys, pa.string()))
        columns = {
            "image_name": pa.array(names, pa.string()),
            "serves": pa.array([sorted(s) for s in serves], pa.list_(pa.string())),
            "partners": pa.array([partners_of(by_reference.get(r), stacks) for r in range(count)], PARTNERS),
            "label_images": pa.array([labels_of(by_reference.get(r)) for r in range(count)], LABELLED),
        }
        for name, values in columns.items():
            table = table.append_column(name, values)
        links = {keys[row]: links_of(found, self.spec.labels) for row, found in by_reference.items()}
        table = with_label_columns(table, links, self.spec)
        return table, {
            keys[row]: links[keys[row]] + links_of_registrations(found) for row, found in by_reference.items()
        }


def _names_images(text: str, schema: pa.Schema, options: Cohort) -> bool:
    columns = compile_expression(text, schema).columns
    return any(c.startswith("present.") or c.rpartition(".")[0] in options.partners for c in columns)


def _ranks(table: pa.Table, prefer: Sequence[str]) -> list[int]:
    ranks = [0] * table.num_rows
    for rank, row in enumerate(preferred(table, prefer)):
        ranks[row] = rank
    return ranks


def _is_near(reference: CandidateRow, other: CandidateRow, within_days: int | None) -> bool:
    """Return whether a row is of the reference's study, or of one that is as near in time as the spec allows."""
    if reference.study_key == other.study_key:
        return True
    if within_days is None or reference.study_date is None or other.study_date is None:
        return False
    return abs((reference.study_date - other.study_date).days) <= within_days


def _fits(reference: CandidateRow, other: CandidateRow, aligned: str) -> bool:
    """Return whether headers allow the alignment that the spec states; affines are compared in the build."""
    if aligned == "frame":
        frame = reference.frame_of_reference_key
        return frame is not None and frame == other.frame_of_reference_key
    if aligned == "grid":
        return (reference.slices, reference.rows, reference.columns) == (other.slices, other.rows, other.columns)
    return True

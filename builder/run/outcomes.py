"""Define the outcomes of a plan and a build, as facts for machines and lines for a person."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from builder.clinical import summary_lines
from builder.errors import counted
from builder.patches import describe_storage
from builder.plan import DatasetPlan
from builder.planning.deal import cannot
from builder.planning.forecast import forecast_lines, hints
from builder.planning.inventory import Inventory, Survey
from builder.planning.people import doubts
from builder.planning.playbook import UNMAPPED
from builder.planning.registry import registry_facts, registry_lines
from builder.publishing.outcome import plan_faults
from builder.publishing.published import Published
from builder.report.association import is_worth_a_look


@dataclass(frozen=True, eq=False)
class Planned:
    """The outcome of ``plan``: what a build would do."""

    plan: DatasetPlan
    inventory: Inventory
    survey: Survey
    forecast: Mapping[str, Any]
    """What a build will do, from ``builder.planning.forecast``."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """The report before the build; empty inside a build. ``report_page`` is the location of its page."""
    report_page: str = ""
    before: str = ""
    """Plan of the published version, where shards are copied from its samples instead of being made."""

    def facts(self) -> dict[str, Any]:
        """Return counts, exclusions by rule, bytes, memory and shards."""
        plan = self.plan
        rules: dict[str, int] = {}
        for rule in plan.cohort.column("rule").to_pylist():
            if rule is not None:
                rules[rule] = rules.get(rule, 0) + 1
        splits: dict[str, int] = {}
        for split in plan.splits.column("split").to_pylist():
            splits[split] = splits.get(split, 0) + 1
        return {
            "dataset": plan.spec.name,
            "files": self.inventory.files,
            "stacks": plan.cohort.num_rows,
            "cases": len(plan.cases),
            "excluded_by_rule": dict(sorted(rules.items())),
            "persons_by_split": splits,
            "shards": len(plan.shards),
            "stored_as": describe_storage(plan.spec.samples, plan.spec.shards.codec),
            "input_bytes": sum(c.input_bytes for c in plan.cases),
            "sample_bytes": sum(c.sample_bytes for c in plan.cases),
            "peak_bytes_per_task": max((s.peak_bytes for s in plan.shards), default=0),
            "clinical": list(plan.clinical),
            "persons": plan.persons.counts(),
            "persons_in_doubt": list(doubts(plan.persons)),
            "registry": registry_facts(plan),
            "splits_cannot": list(cannot(plan.spec, plan.cohort, plan.splits)),
            "anonymity": None if plan.anonymity is None else plan.anonymity.facts(),
            "licenses": _licenses(plan.origins),
            "procedures": None if plan.procedures is None else dict(plan.procedures),
            "structures": dict(plan.structures),
            "forecast": dict(self.forecast),
            "refused": list(self.refused),
            "report": dict(self.report),
            "report_page": self.report_page,
        }

    @property
    def refused(self) -> tuple[str, ...]:
        """Return why a build would publish nothing; empty when it would publish."""
        return plan_faults(self.plan)

    def hints(self) -> list[str]:
        """Return how much each rule excluded, when nothing is left."""
        return hints(self.forecast, self.plan.cohort, self.inventory)

    def text(self) -> str:
        """Return the facts as lines for a person."""
        return "\n".join([*self.lines(), *_report_lines(self.report), *self._last_lines()])

    def _last_lines(self) -> Iterator[str]:
        if self.report_page:
            yield f"  report: {self.report_page}"
        if self.refused:
            yield "  a build would publish nothing: " + "; ".join(self.refused)
            yield from (f"    {hint}" for hint in self.hints())

    def lines(self) -> list[str]:
        """Return what was found and what a build makes of it; the lines are the same after a plan and after a build."""
        facts = self.facts()
        there = self.forecast["shards_already_there"]
        return [
            f"{facts['dataset']}: {counted(facts['files'], 'file')}, {counted(facts['stacks'], 'image stack')}, "
            f"{counted(facts['cases'], 'case')}",
            *_incomplete_lines(self.inventory.incomplete),
            *(f"  excluded by {rule}: {count}" for rule, count in facts["excluded_by_rule"].items()),
            *(f"  {line}" for line in forecast_lines(self.forecast)),
            "  persons: " + ", ".join(f"{split} {count}" for split, count in facts["persons_by_split"].items()),
            *(f"  splits: {line}" for line in facts["splits_cannot"]),
            *registry_lines(facts["registry"]),
            *summary_lines(facts["clinical"]),
            _identity_line(facts["persons"]),
            *(f"  persons: {line}" for line in facts["persons_in_doubt"]),
            *([f"  {plan.anonymity.line(plan.spec.deid.anonymity.k)}"] if (plan := self.plan).anonymity else []),
            "  licences of series and tables: "
            + ", ".join(f"{name} {count}" for name, count in facts["licenses"].items()),
            *_procedure_lines(facts["procedures"]),
            *_structure_lines(facts["structures"]),
            f"  {counted(facts['shards'], 'shard')} ({counted(there, 'is', 'are')} there already), "
            f"{_size(facts['input_bytes'])} to read, "
            f"at most {_size(facts['sample_bytes'])} of samples before compression, "
            f"at most {_size(facts['peak_bytes_per_task'])} of memory a task",
            f"  {facts['stored_as']}",
        ]


def _rewritten_lines(rewritten: bool) -> Iterator[str]:
    if rewritten:
        yield (
            "  files were written again since then, with the same headers and lengths: their shards hold what was read "
            "before. If pixels may have changed, give the source identity: content, which reads them all"
        )


def _incomplete_lines(studies: int) -> Iterator[str]:
    """Yield one line about studies that did not come whole, if there are any."""
    if studies:
        yield (
            f"  LEFT OUT FOR NOW: {counted(studies, 'study', 'studies')} that a source did not give whole "
            "(source_incomplete); the next run "
            "asks again"
        )


def _withheld_lines(columns: Mapping[str, int]) -> Iterator[str]:
    """Yield one line about withheld text, if there is any."""
    if columns:
        told = ", ".join(f"{name} {cases}" for name, cases in columns.items())
        yield f"  text kept back, by column and cases ({told}): declare it in deid.text; the private plan lists it"


@dataclass(frozen=True)
class Built:
    """The outcome of ``build``."""

    dataset: str
    published: Published
    shards: int
    resumed: int
    version: str = ""
    """The public version, if labels are sequestered; ``published`` is then the whole dataset."""
    labels: str = ""
    """The separate store of sequestered labels."""
    internal_errors: int = 0
    """Number of series and cases that were left out because of a bug in this program."""
    planned: Planned | None = None
    """The plan it was built from."""

    def facts(self) -> dict[str, Any]:
        """Return what was published, as JSON-able data."""
        p = self.published
        return {
            "dataset": self.dataset,
            "version": self.version or p.version,
            **({"labels": {"dataset": self.labels, "version": p.version}} if self.labels else {}),
            "unchanged": p.unchanged,
            "rewritten": p.rewritten,
            "samples": p.samples,
            "cases": p.cases,
            "persons": p.persons,
            "shards": self.shards,
            "shards_already_there": self.resumed,
            "internal_errors": self.internal_errors,
            "lost": [dict(loss) for loss in p.lost],
            "totals": p.totals,
            **({"withheld": dict(p.withheld)} if p.withheld else {}),
            "clinical": list(self.planned.plan.clinical) if self.planned is not None else [],
        }

    def text(self) -> str:
        """Return the facts as lines for a person."""
        p = self.published
        version, whole = self.version or p.version, self.labels or self.dataset
        if p.unchanged:
            missing = self.planned.inventory.incomplete if self.planned is not None else 0
            done = f"{self.dataset}: nothing to do, version {version} is published from these inputs"
            return "\n".join((done, *_rewritten_lines(p.rewritten), *_incomplete_lines(missing)))
        lines = [
            *(self.planned.lines() if self.planned is not None else ()),
            f"{self.dataset}: published version {version}",
            f"  {counted(p.samples, 'sample')} of {counted(p.cases, 'case')} and {counted(p.persons, 'person')} in "
            f"{counted(self.shards, 'shard')} ({counted(self.resumed, 'was', 'were')} there already)",
            *self._lost(),
            *_withheld_lines(p.withheld),
            *(
                f"  {level}: " + ", ".join(f"{n} {status}" for status, n in counts.items())
                for level, counts in p.totals.items()
            ),
            f"  report: {whole}/versions/{p.version}/report/index.html",
            f"  catalog: {whole}/versions/{p.version}/catalog/index.html",
        ]
        return "\n".join(lines) + self._warning()

    def _lost(self) -> Iterator[str]:
        """Yield what the build lost compared with the plan, by reason."""
        for loss in self.published.lost:
            took = f"{counted(loss['cases'], 'case')} of {counted(loss['persons'], 'person')}"
            yield f"  lost in the build: {took}, {loss['reason']}"
        if self.published.lost:
            name = self.published.lost[0]["example"][0]
            yield f"  why: builder explain {self.dataset} {name}"

    def _warning(self) -> str:
        """Return the warning to show at the end of a build."""
        return f"\n{internal_errors_line(self.internal_errors, self.dataset)}" if self.internal_errors else ""


def internal_errors_line(count: int, dataset: str) -> str:
    """Return the warning about what was left out because of faults of this program."""
    return (
        f"INTERNAL ERROR: {count} left out because of a fault of this program, not of the files; "
        f"their tracebacks: builder logs {dataset}\n"
        "  please report them; the next build tries these cases again, and --strict stops at the first"
    )


def _report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report's main results: balance, notable associations, and what the test split can show."""
    if not report:
        return
    balance = report["balance"]
    if balance is not None:
        yield (
            f"  balance: of {counted(balance['strata']['number'], 'stratum', 'strata')} the worst is "
            f"{balance['strata']['worst_persons']:.2f} persons off its share, the worst single value "
            f"{balance['worst_level_persons']:.2f}"
        )
    for row in (*report["associations"], *report["missingness"]):
        if is_worth_a_look(row):
            yield f"  {row['label']} follows {row['group']}: V {row['cramers_v']:.2f}, q {row['q']:.3f}"
    for row in report["baseline"]:
        if row["auc"] is not None:
            yield f"  {row['outcome']} from headers alone: AUC {row['auc']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    for entry in report["power"]["outcomes"]:
        widths = {w["assumed"]: w["half_width"] for w in entry["sensitivity"]}
        shown = "no sensitivity" if widths[0.9] is None else f"a sensitivity of 0.9 to within {widths[0.9]:.2f}"
        yield f"  {entry['outcome']}: {entry['positives']} yes, {entry['negatives']} no to test on: shows {shown}"


def _licenses(origins: pa.Table) -> dict[str, int]:
    """Count series and tables by licence; ``not stated`` is one of the licences."""
    names = sorted(name or "not stated" for name in origins.column("license").to_pylist())
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _structure_lines(structures: Mapping[str, Any]) -> list[str]:
    lines = []
    for label, facts in structures.items():
        found = ", ".join(f"{name} in {cases}" for name, cases in facts["structures"].items()) or "no structure"
        lines.append(f"  label {label}: {found} of {counted(facts['cases'], 'case')}; {_names_line(facts)}")
    return lines


def _names_line(facts: Mapping[str, Any]) -> str:
    missed, names = facts["names_taken_by_none"], facts["names"]
    if not names:
        return "the label objects state no names"
    if not missed:
        return f"every name in the label objects was matched ({counted(names, 'name')})"
    return (
        f"{missed} of the {counted(names, 'name')} in the label objects matched no pattern of the label: "
        "label-names.csv of the private workspace lists them"
    )


def _identity_line(counts: Mapping[str, int]) -> str:
    """Say how many persons there are, under how many PatientIDs, and what was noted about how many of them."""
    notes = [f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if name not in _IDENTITIES]
    persons, ids = (counted(counts[name], noun) for name, noun in _IDENTITIES.items())
    return f"  identity: {persons} under {ids}" + ("; " + ", ".join(notes) if notes else "")


_IDENTITIES = {"persons": "person", "patient_ids": "PatientID"}


def _procedure_lines(procedures: Mapping[str, Any] | None) -> list[str]:
    if procedures is None:
        return []
    unmapped = f"; the rest is listed in {UNMAPPED} of the private workspace"
    return [
        f"  RadLex Playbook: {procedures['mapped']} of {procedures['studies']} studies have a procedure"
        + (unmapped if procedures["mapped"] < procedures["studies"] else "")
    ]


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if unit != "B" else f"{count} B"
        value /= 1024
    return f"{value:.1f} TiB"

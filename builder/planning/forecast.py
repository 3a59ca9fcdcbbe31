"""Forecast a build of a plan: what each rule keeps, what will be refused, and what exists already."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import Reason, counted
from builder.files import PICTURES, VOLUMES
from builder.imaging.stacks.options import VolumeOptions
from builder.labels import AnyLabel
from builder.model.expression import compile as compile_expression
from builder.model.globs import fits, pieces_of
from builder.model.layout import DATA, RECEIPT, shard_path
from builder.model.options import published_rule
from builder.model.places import place_of
from builder.patches import PICTURE_KINDS
from builder.plan import DatasetPlan
from builder.planning.asked import IDENTIFYING
from builder.planning.inventory import Inventory, Survey
from builder.planning.layouts import unread_lines
from builder.planning.offsets import STUDY_DAY, count_withheld_days, read_lives, study_days
from builder.planning.risks import pixel_refusals
from builder.report.crossings import published_split
from builder.spec import DatasetSpec
from builder.spec.blocks import ReportOptions
from builder.storage import Store

Facts = dict[str, Any]

TOLD = ("modality", "vendor", "body_part", "verdict")
"""Columns whose values are reported for every rule that reads them."""

MOST_VALUES = 8
MOST_DETAILS = 2
NO_VALUE = "no value"
TYPES = {1: "8-bit", 2: "16-bit", 4: "32-bit", 8: "64-bit"}


def forecast(plan: DatasetPlan, dataset: Store, *, inventory: Inventory, survey: Survey) -> Facts:
    """Return facts about what a build will do, as JSON-able data.

    Returns
    -------
    dict
        ``rules`` (what each keeps, by value, and texts that match nothing with the most similar existing one),
        ``kinds`` (what the geometry policy excludes, with the option that admits it), ``pixels_refused`` (the number of
        cases the build will refuse because their pixels may show text, by cause), ``number_types`` (bytes of a voxel to
        modality to cases), ``labels_nowhere`` (labels that no stack has, and how many files fit their pattern),
        ``dead_columns`` (columns that the spec uses and that are empty), ``days_withheld`` (cases
        whose ``study_day`` may not leave), ``times_kept_private`` (clinical columns of elapsed time that
        ``deid.retain`` does not name), ``published_split`` (how far it divides persons), ``shards_already_there``.
    """
    included = plan.cohort.filter(plan.cohort["included"])
    return {
        "rules": [_rule(plan.cohort, name, text) for name, text in _rules(plan.spec)],
        "kinds": _kinds(plan.cohort, plan.spec.volumes),
        "pixels_refused": pixel_refusals(plan, inventory, survey),
        "number_types": {} if plan.spec.cohort.images else _number_types(plan.spec, included),
        "labels_nowhere": _labels_nowhere(plan, inventory),
        "dead_columns": _dead_columns(plan.spec, included),
        "days_withheld": _days_withheld(plan, survey),
        "times_kept_private": _times_kept_private(plan.spec),
        **published_split(included),
        "shards_already_there": _there(plan, dataset),
    }


def _there(plan: DatasetPlan, dataset: Store) -> int:
    """Count the shards that are finished. One listing takes a request a thousand objects, not one a shard."""
    receipts = {shard_path(shard.fingerprint, RECEIPT) for shard in plan.shards}
    return sum(path in receipts for path in dataset.list(DATA))


def forecast_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the facts as lines for a person."""
    for rule in facts["rules"]:
        yield from rule_lines(rule)
    for kind in facts["kinds"]:
        switch = f" ({kind['switch']} lets them in)" if kind["switch"] else ""
        if kind["switch"] and kind["verdict"] in PICTURE_KINDS:
            switch = f" ({kind['switch']}, or samples: {{kind: images}}, lets them in)"
        named = ", ".join(dict.fromkeys([kind["verdict"], kind["reason"]]))
        yield f"{kind['rule']}: {kind['stacks']} {named}{switch}"
    for why, count in facts["pixels_refused"].items():
        yield f"burned-in text: the build will refuse {counted(count, 'case')}: {why}"
    if len(facts["number_types"]) > 1:
        found = "; ".join(f"{name} {_counted(kinds)}" for name, kinds in facts["number_types"].items())
        yield (
            f"number types: {found}; the images of one dataset need one type: "
            "add {kind: intensity, dtype: float32} to transforms, or select one modality"
        )
    yield from map(_nowhere_line, facts["labels_nowhere"])
    if "published_split" in facts:
        told = facts["published_split"]
        yield (
            f"published split ({', '.join(told['images'])}): {told['in_two_splits']} of "
            f"{counted(told['persons'], 'person')} "
            f"{'lies' if told['in_two_splits'] == 1 else 'lie'} "
            "in more than one part of it; it is kept as the column split_published"
        )
    for column in facts["dead_columns"]:
        yield f"column {column['column']} ({column['used_by']}): no value in any of {counted(column['cases'], 'case')}"
    if facts["days_withheld"]:
        yield (
            f"column {STUDY_DAY} (deid.retain): withheld from {counted(facts['days_withheld'], 'case')}, because a "
            "date is a "
            "placeholder, not after the date of birth, or of a person who may be 90 or older"
        )
    if facts["times_kept_private"]:
        names = facts["times_kept_private"]
        yield (
            f"{'column' if len(names) == 1 else 'columns'} {', '.join(names)} (clinical): published without values, "
            "because a time between two dates leaves only where deid.retain names its column (docs/privacy-rules.md, "
            "Dates)"
        )


def _nowhere_line(label: Mapping[str, Any]) -> str:
    """Return why no image has a label, as far as its pattern tells."""
    fitting = counted(label["files"], "file fits", "files fit")
    return f"label {label['label']}: {fitting} its match {label['match']!r}" + (
        ", but none has an answer for an image that is left; check that the columns under `by` hold those facts"
        if label["files"]
        else "; it is compared with the whole path below the source, in which `**/` stands for any folders"
    )


def rule_lines(rule: Mapping[str, Any]) -> Iterator[str]:
    """Return what a rule keeps, and which of its texts match nothing."""
    kept = "; ".join(f"{column} {_counted(values)}" for column, values in rule["kept"].items())
    keeps = f"rule {rule['name']} ({rule['expression']}) keeps {rule['matched']} of {counted(rule['stacks'], 'stack')}"
    yield keeps + (f": {kept}" if kept else "")
    for unmatched in rule["unmatched"] if rule["stacks"] else ():
        near = f"; did you mean {unmatched['nearest']!r}?" if unmatched["nearest"] else ""
        yield f"  no {unmatched['column']} is {unmatched['text']!r}: found {_counted(unmatched['found'])}{near}"


def hints(facts: Mapping[str, Any], cohort: pa.Table, inventory: Inventory) -> list[str]:
    """Return how much each rule excluded and what the files are, for the message that says why nothing is left."""
    if not cohort.num_rows:
        return list(_files(inventory))
    reasons: dict[str, Counter[str]] = {}
    for rule, detail in zip(*(cohort[name].to_pylist() for name in ("rule", "detail")), strict=True):
        if rule:
            reasons.setdefault(rule, Counter())[detail or ""] += 1
    lines = []
    for name, details in sorted(reasons.items()):
        told = [f"{detail} ({count})" for detail, count in details.most_common() if detail][:MOST_DETAILS]
        why = f", most often: {'; '.join(told)}" if told else ""
        lines.append(f"rule {name} took {details.total()} of {counted(cohort.num_rows, 'stack')}{why}")
    lines += [line for rule in facts["rules"] if rule["unmatched"] or not rule["matched"] for line in rule_lines(rule)]
    kinds = {**facts, "rules": [], "number_types": {}, "dead_columns": [], "days_withheld": 0, "times_kept_private": []}
    return [*lines, *forecast_lines(kinds)]


def _files(inventory: Inventory) -> Iterator[str]:
    """Yield what was found when there is no image at all."""
    annotations = inventory.annotations(columns=["format"])["format"].to_pylist()
    yield from (
        f"{counted(count, 'file')} of format {form}: no image series"
        for form, count in Counter(annotations).most_common()
    )
    left = inventory.leftovers(columns=["reason", "format"])
    pairs = zip(left["format"].to_pylist(), left["reason"].to_pylist(), strict=True)
    for (form, reason), count in sorted(Counter(pairs).items(), key=lambda item: -item[1]):
        yield f"{counted(count, 'file')} of format {form or 'unknown'} set aside: {reason}"
    readable = Counter(form for form in annotations if form in VOLUMES | PICTURES)
    yield from unread_lines(readable)
    expected = "DICOM images" if not readable else "DICOM images, or a layout on the source,"
    among = counted(inventory.files, "file")
    yield f"expected {expected} among {among}; check that the source's url is the right folder"


def _rules(spec: DatasetSpec) -> Iterator[tuple[str, str]]:
    if spec.cohort.image is not None:
        yield "image", spec.cohort.image
    yield from ((f"image {name}", image.select) for name, image in spec.cohort.images.items())
    yield from ((rule.name, rule.keep) for rule in spec.cohort.rules)


def _rule(cohort: pa.Table, name: str, text: str) -> Facts:
    expression = compile_expression(text, cohort.schema)
    kept = cohort.filter(expression.mask(cohort))
    told_of = [c for c in expression.columns if c not in IDENTIFYING]  # values of the others are not for a message
    texts = [c for c in told_of if pa.types.is_string(cohort.schema.field(c).type)]
    told = [c for c in expression.columns if c in TOLD] or [c for c in texts if not c.endswith("_key")]
    unmatched = []
    for column, wanted in dict.fromkeys(expression.texts):
        if column in texts:
            found = _counts(cohort[column])
            if wanted not in found:
                nearest = _nearest(wanted, found)
                unmatched.append({"column": column, "text": wanted, "nearest": nearest, "found": found})
    return {
        "name": name,
        "expression": published_rule(text),
        "stacks": cohort.num_rows,
        "matched": kept.num_rows,
        "kept": {column: _counts(kept[column]) for column in told} if kept.num_rows else {},
        "unmatched": unmatched,
    }


def _days_withheld(plan: DatasetPlan, survey: Survey) -> int:
    if STUDY_DAY not in plan.spec.deid.retain:
        return 0
    lives = read_lives(plan.cohort, plan.persons, survey, retain=plan.spec.deid.retain)
    return count_withheld_days(plan.cohort, study_days(plan.cohort, lives, most_days=plan.spec.deid.most_days))


def _times_kept_private(spec: DatasetSpec) -> list[str]:
    """Return the clinical columns that the plan may use, but whose values no published table holds."""
    leaving = {*spec.clinical_columns}
    return [name for table in spec.clinical for name in table.names if name not in leaving]


def _nearest(wanted: str, found: Mapping[str, int]) -> str | None:
    folded = {value.casefold(): value for value in found if value != NO_VALUE}
    near = difflib.get_close_matches(wanted.casefold(), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def _kinds(cohort: pa.Table, volumes: VolumeOptions) -> list[Facts]:
    """Return what is excluded because of its kind, by verdict and reason, most frequent first.

    What the spec lets in already and is excluded all the same, for another reason, has no switch.
    """
    rows = cohort.filter(pc.equal(cohort["rule"], "geometry"))
    counts = Counter(zip(*(rows[column].to_pylist() for column in ("verdict", "reason")), strict=True))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        {
            "rule": "geometry",
            "verdict": of,
            "reason": reason,
            "stacks": count,
            "switch": switch_of(of) if getattr(volumes, of, "exclude") == "exclude" else None,
        }
        for (of, reason), count in ordered
    ]


def switch_of(of: str) -> str | None:
    """Return what to write into the spec to admit a kind; None if nothing does."""
    field = VolumeOptions.model_fields.get(of)
    actions = get_args(field.annotation) if field is not None else ()
    allowed = [action for action in actions if action != "exclude"]
    return f"volumes: {{{of}: {allowed[0]}}}" if "exclude" in actions and allowed else None


def _number_types(spec: DatasetSpec, included: pa.Table) -> dict[str, dict[str, int]]:
    """Count cases by bytes of a stored voxel and modality, as far as headers tell."""
    found: dict[str, Counter[str]] = {}
    for modality, voxel in zip(included["modality"].to_pylist(), included["voxel_bytes"].to_pylist(), strict=True):
        item = voxel - 1 if voxel in (3, 5) else voxel  # less the byte of a padding mask
        for transform in spec.transforms:
            item = transform.item_bytes(item)
        found.setdefault(TYPES.get(item, f"{item}-byte"), Counter())[modality or "of no stated modality"] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(found.items())}


def _labels_nowhere(plan: DatasetPlan, inventory: Inventory) -> list[Facts]:
    """Return the labels with one pattern for all images of which every stack that got so far has none."""
    refused = plan.cohort.filter(pc.equal(plan.cohort["reason"], Reason.LABEL_MISSING.value))
    if not refused.num_rows or any(plan.cohort["included"].to_pylist()):
        return []
    patterns = {name: match for name, label in plan.spec.labels.items() if (match := _pattern_for_all(label))}
    if not patterns:
        return []
    rows = inventory.annotations(columns=["status", "path", "member"]).to_pylist()
    places = [place_of(row["path"], row["member"] or "") for row in rows if row["status"] == "file"]
    fitting = {name: sum(fits(pieces_of(match), place) for place in places) for name, match in patterns.items()}
    return [{"label": name, "match": match, "files": fitting[name]} for name, match in patterns.items()]


def _pattern_for_all(label: AnyLabel) -> str:
    """Return the pattern of a label's files where it names no fact of an image; else ""."""
    stated = label.model_dump(include={"match": True, "table": {"match"}})
    match = str(stated.get("match") or (stated.get("table") or {}).get("match") or "")
    return "" if "{" in match else match


def _dead_columns(spec: DatasetSpec, included: pa.Table) -> list[Facts]:
    named = [
        *((column, "splits.stratify") for column in spec.splits.stratify),
        *((column, "report.groups") for column in spec.report.groups if column not in ReportOptions().groups),
        *((column, "report.outcomes") for column in spec.report.outcomes),
        *((column, "deid.retain") for column in spec.deid.retain),
        *((column, "clinical") for table in spec.clinical for column in table.names),
    ]
    used: dict[str, str] = {}
    for column, by in named:
        used.setdefault(column, by)
    return [
        {"column": column, "used_by": by, "cases": included.num_rows}
        for column, by in used.items()
        if included.num_rows and column in included.column_names and included[column].null_count == included.num_rows
    ]


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = Counter(NO_VALUE if value is None else str(value) for value in column.to_pylist())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _counted(values: Mapping[str, int]) -> str:
    shown: Sequence[tuple[str, int]] = list(values.items())[:MOST_VALUES]
    rest = len(values) - len(shown)
    return ", ".join(f"{value} {count}" for value, count in shown) + (f" and {rest} more" if rest else "")

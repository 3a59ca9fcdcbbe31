"""Describe a dataset by the items of the C-MIMI whitepaper, with a completeness score.

The sixteen items cover Table 2 of the whitepaper (Kohli, Summers, Geis 2017, doi:10.1007/s10278-017-9976-3) in this
project's wording and order.
"""

from typing import Any

from builder.catalog.facts import PLACES, TODO, Facts, RangeFacts, ValueCount
from builder.catalog.reference import agreement, who_stands_behind

DEEP_LEARNING = ("architecture", "loss", "optimizer", "learning_rate", "batch_size", "epochs")
"""The six parameters that a training run reports back (``builder record-training``)."""

ABOUT = {
    1: ("image types", None),
    2: ("number of persons, examinations and images", None),
    3: ("imaging procedures, by RadLex Playbook", "catalog.playbook"),
    4: ("equipment and acquisition", None),
    5: ("source of the images", None),
    6: ("population", "deid.retain, clinical"),
    7: ("annotations and their types", "labels"),
    8: ("ground truth: who made it, how, and how well readers agree", "catalog.annotation"),
    9: ("de-identification", None),
    10: ("formats and preprocessing", None),
    11: ("partitions for training, validation and testing", None),
    12: ("use cases", "use_case"),
    13: ("owner and responsible party", "governance"),
    14: ("access, costs, licence and ethics approval", "governance"),
    15: ("log of use", "catalog.log_of_use"),
    16: ("deep-learning parameters of training runs", None),
}


def cmimi(facts: Facts, *, uses: int | None = None, runs: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return each item with its answer or a TODO, and how many of the sixteen are answered.

    Parameters
    ----------
    uses
        Number of read sessions in the log of use; None before publication, when nobody can have read the version.
    runs
        What training runs reported back, one text per run.
    """
    answers = {**_images(facts), **_making(facts), **_people(facts, uses, runs)}
    unstated = {i: [n for n, said in parts.items() if not said] for i, parts in _asked(facts).items()}
    known = _known(facts)
    todo = {i: _todo(i, about, block, ", ".join(unstated.get(i, ()))) for i, (about, block) in ABOUT.items()}
    items = [
        {
            "item": i,
            "about": about,
            "answer": answers[i] or "; ".join([*known.get(i, ()), todo[i]]),
            "answered": bool(answers[i]),
        }
        for i, (about, _) in ABOUT.items()
    ]
    answered = sum(1 for item in items if item["answered"])
    return {"items": items, "answered": answered, "of": len(items), "completeness": answered / len(items)}


def _todo(item: int, about: str, block: str | None, missing: str) -> str:
    if item == 16:
        return f"{TODO}: no training run reported back yet (builder record-training)"
    return f"{TODO}: state {missing or f'the {about}'}" + (f" (spec: {block})" if block else "")


def _asked(facts: Facts) -> dict[int, dict[str, Any]]:
    """Map each item to everything it needs, by spec key; agreement may also come from the labels themselves."""
    note, card, who = facts.statement.annotation, facts.use_case, facts.governance
    return {
        8: {"protocol": note.protocol, "annotators": note.annotators, "agreement": agreement(facts)},
        12: {"task": card.task, "intended_use": card.intended_use},
        13: {"owner": who.owner, "responsible": who.responsible},
        14: {"access": who.access, "costs": who.costs, "ethics_approval": who.ethics_approval},
    }


def _known(facts: Facts) -> dict[int, list[str]]:
    """Return what is known about items that are answered only in part."""
    note, asked = facts.statement.annotation, _asked(facts)
    truth = [note.protocol, note.annotators or who_stands_behind(facts), agreement(facts)]
    owner, terms = ([f"{n.replace('_', ' ')}: {v}" for n, v in asked[i].items() if v] for i in (13, 14))
    return {8: [t for t in truth if t], 13: owner, 14: [f"licence: {facts.license}", *terms]}


def _images(facts: Facts) -> dict[int, str | None]:
    types = [_counted(name, facts.images) for name in ("modality", "body_part", "image_type")]
    equipment = [_counted(name, facts.images) for name in ("manufacturer", "manufacturer_model", "kvp")]
    acquired = [_ranged(name, found) for name, found in facts.ranges.items() if name != "age_years"]
    sources = [f"{s.name} ({f'{s.series} series, ' if s.series else ''}{s.role})" for s in facts.sources]
    numbers = (
        f"{facts.persons} persons, {facts.cases} cases, {facts.samples} samples; {facts.source_files} files found, "
        f"{facts.source_bytes} bytes of images used"
    )
    return {
        1: "; ".join(filter(None, types)) or None,
        2: numbers if facts.persons else None,
        3: _procedures(facts),
        4: "; ".join(filter(None, [*equipment, *acquired])) or None,
        5: "; ".join([*sources, *filter(None, (_counted(name, facts.people) for name in PLACES))]) or None,
    }


def _procedures(facts: Facts) -> str | None:
    found = facts.procedures
    if found is None or not found.mapped:
        return None
    rows = (f"{rpid} {name}: {studies}" for rpid, name, studies in found.procedures)
    return "; ".join([f"{found.mapped} of {found.studies} studies mapped", *rows])


def _making(facts: Facts) -> dict[int, str | None]:
    note = facts.statement.annotation
    truth = [note.protocol, note.annotators, agreement(facts)]
    people = [_counted(name, facts.people) for name in facts.people if name not in PLACES]
    age = facts.ranges.get("age_years")
    formats = "Zarr v3 arrays and Parquet tables"
    return {
        6: "; ".join(filter(None, [*([_ranged("age_years", age)] if age else []), *people])) or None,
        7: "; ".join(f"{name}: {kind}" for name, kind in facts.labels.items()) or None,
        8: "; ".join(t for t in truth if t) if all(truth) else None,
        9: "; ".join(facts.deidentification) or None,
        10: "; ".join([formats, *(f"{n}: {m}" for n, m in facts.arrays.items()), *facts.preprocessing])
        if facts.arrays else None,
        11: facts.split_sentence,
    }  # fmt: skip


def _people(facts: Facts, uses: int | None, runs: tuple[str, ...]) -> dict[int, str | None]:
    card, who = facts.use_case, facts.governance
    case = [card.task.rstrip(".") if card.task else None, *card.intended_use]
    access = (who.access, who.costs, who.ethics_approval)
    logged = "kept beside the dataset, one entry a read session (builder uses)"
    return {
        12: "; ".join(c for c in case if c) if card.task and card.intended_use else None,
        13: f"owner: {who.owner}; responsible: {who.responsible}" if who.owner and who.responsible else None,
        14: "; ".join([facts.license, *(a for a in access if a)]) if all(access) else None,
        15: (logged if uses is None else f"{uses} read sessions, {logged}") if facts.statement.log_of_use else None,
        16: "; ".join(runs) or None,
    }


def _counted(name: str, found: Any) -> str | None:
    values: tuple[ValueCount, ...] = found.get(name, ())
    words = ", ".join(str(v) for v in values if v.value is not None)
    return f"{name.replace('_', ' ')}: {words}" if words else None


def _ranged(name: str, found: RangeFacts) -> str:
    unit = f" {found.unit}" if found.unit else ""
    words = name.removesuffix("_mm").removesuffix("_years").replace("_", " ")
    if found.low == found.high:
        return f"{words}: {found.low:g}{unit}"
    return f"{words}: {found.low:g} to {found.high:g}{unit}, median {found.median:g}"

"""Names in one block of a spec that another block must have: what nothing is called by is a fault."""

import difflib
from collections.abc import Iterable, Iterator, Sequence

from builder.deid import RETAINABLE


def centre_faults(centred_on: str | None, labels: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the label that samples are centred on."""
    if centred_on is not None and centred_on not in labels:
        yield f"samples.centred_on: found {centred_on!r}, expected {_one_of(labels)}"


def field_faults(fields: Iterable[str], labels: Sequence[str], images: Sequence[str] = ()) -> Iterator[str]:
    """Yield the fields whose storage is stated although no sample will have them; ``images`` are fields of images."""
    known = [*(images or ["image"]), *labels]
    for name in fields:
        if name.split(".")[0] not in known:
            yield f"shards.fields: found {name!r}, expected some of {known}"


def retain_faults(retain: Iterable[str], dated: Sequence[str]) -> Iterator[str]:
    """Yield the names in ``deid.retain`` that are nothing to retain; ``dated`` are the clinical columns of dates."""
    known = [*RETAINABLE, *dated]
    for name in retain:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"deid.retain: found {name!r}, expected names out of: {', '.join(known)}{hint}"


def _one_of(labels: Sequence[str]) -> str:
    return f"one of the labels {', '.join(labels)}" if labels else "a label: the spec has none, add it to labels"

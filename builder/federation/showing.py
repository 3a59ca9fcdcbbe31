"""A document as a person reads it, before it is approved."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.errors import counted
from builder.federation.documents import (
    KINDS,
    Answer,
    Copies,
    Document,
    Marks,
    Offer,
    Plan,
    Receipt,
    Request,
    Spec,
    Table,
    kind_of,
    read,
)


def shown_file(path: Path) -> str:
    """Return the text of a file, and whether somebody signed it; whose key that is must be checked elsewhere."""
    data = path.read_bytes()
    kinds: Mapping[str, Any] = KINDS
    document: Document
    document, signature = read(data, kinds.get(kind_of(data), Offer), where=str(path))
    state = "nobody has signed it" if signature is None else f"signed by {signature.key} (not checked here)"
    return f"{shown(document)}\n  {state}"


def shown(document: Document) -> str:
    """Return the whole document as text: everything that leaves is in it."""
    return "\n".join(_lines(document))


def repeated(receipt: Receipt) -> str:
    """Return the sentence on a receipt that tells the numbers of an earlier version again."""
    return (
        f"the numbers are those of version {receipt.counted}, because those of now would tell of few persons; each is "
        f"off by fewer than {receipt.k}"
    )


def _lines(document: Document) -> Iterator[str]:
    yield f"{document.kind} {document.sequence} of {document.federation}"
    if isinstance(document, Offer | Receipt):
        yield f"  site {document.site}; no number below {document.k} is shown"
        if isinstance(document, Receipt) and document.counted != document.version:
            yield f"  version {document.version}; {repeated(document)}"
        for table in (document.strata, *document.tables):
            yield from _table(table)
        yield from (f"  withheld: {line}" for line in document.withheld)
        yield "  versions: " + ", ".join(f"{name} {version}" for name, version in sorted(document.lock.items()))
    elif isinstance(document, Plan):
        for site, rows in sorted(document.quotas.items()):
            for quota in rows:
                dealt = ", ".join(f"{split} {count}" for split, count in quota.counts.items())
                yield f"  {site}, {' / '.join(quota.levels) or 'everyone'}: {dealt}"
        if document.spacing_mm is not None:
            axes = " x ".join("as it is" if mm is None else f"{mm:g}" for mm in document.spacing_mm)
            yield f"  resampled to {axes} mm (slice, row, column)"
        if document.clip is not None:
            yield f"  intensities limited to {document.clip[0]:g} to {document.clip[1]:g}"
        yield from (f"  {site}: held out as {split}" for site, split in sorted(document.held_out.items()))
        yield from (f"  rule: {rule}" for rule in document.rules)
        yield from (f"  differs: {line}" for line in document.differences)
    elif isinstance(document, Spec):
        yield "  sites: " + ", ".join(sorted(document.sites))
        yield from (f"  {line}" for line in document.spec.splitlines())
    else:
        yield from _lines_between(document)


def _lines_between(document: Marks | Copies | Request | Answer) -> Iterator[str]:
    """Yield what a file says that goes from site to site, or tells of them."""
    if isinstance(document, Marks):
        planes = [len(volume.planes) for volume in document.volumes]
        yield f"  site {document.site}; to be compared by {', '.join(document.readers)}"
        yield f"  {counted(len(planes), 'image')} with {min(planes, default=0)} to {max(planes, default=0)} planes"
        yield "  of each image keyed digests of its pixels and planes, and keyed bands of a hash; no name"
    elif isinstance(document, Request | Answer):
        yield f"  from {document.site} to {document.to}"
        learns = "which of its persons" if document.membership else "how many of its persons, and not which,"
        asks = document.site if isinstance(document, Request) else document.to
        yield f"  {asks} learns {learns} the other site has as well"
        if isinstance(document, Request):
            yield f"  {counted(document.persons, 'identifier')} ({document.identifiers}), encrypted"
        else:
            yield f"  to request {document.request}; all identifiers encrypted"
    else:
        yield f"  site {document.site}; no number below {document.k} is shown"
        for table in document.tables:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"  {table.name} ({', '.join(column.name for column in table.columns) or 'everyone'}; of {table.of})"
    for row in table.rows:
        if row.persons is not None:
            yield f"    {' / '.join(row.levels) or 'all'}: {row.persons}"
    hidden = sum(row.persons is None for row in table.rows)
    if hidden:
        yield f"    {hidden} numbers are suppressed"

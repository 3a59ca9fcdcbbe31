"""Tell the terms of a dataset and its sources, and how to cite them."""

from typing import Any

from builder.catalog.facts import Facts, SourceFacts, stated
from builder.model.licenses import combine, conflicts, forbids_commercial_use, license_url, normal


def terms(facts: Facts) -> dict[str, Any]:
    """Return the licence of every source, what all licences together require, and every source to cite."""
    names = [s.license for s in facts.sources]
    judged = ((s, forbids_commercial_use(s.license)) for s in facts.sources)
    refused = sorted({f"{s.license or f'the licence of {s.name}'} {why}" for s, why in judged if why is not None})
    own = forbids_commercial_use(facts.license)
    refused += [f"the dataset's own licence {facts.license} {own}"] if own else []
    return {
        "license": facts.license,
        "license_url": license_url(facts.license),
        "usage": facts.usage,
        "commercial_use": "allowed by every licence" if facts.sources and not refused else "not proven",
        "commercial_use_refused_by": refused,
        "together": list(combine(names)),
        "conflicts": list(conflicts(facts.license, names)),
        "sources": [_source(source) for source in facts.sources],
        "citations": _citations(facts.sources),
    }


def citation(source: SourceFacts) -> str:
    """Return how to cite a source: the reference its authors request, else its name with DOI or page, else a TODO."""
    where = f"https://doi.org/{source.doi}" if source.doi else source.page
    if source.citation:
        known = where is None or (source.doi or where) in source.citation
        return source.citation if known else f"{source.citation} {where}"
    return f"{source.name}. {where}" if where else stated(None, f"how to cite {source.name} (spec: origin.citation)")


def _citations(sources: tuple[SourceFacts, ...]) -> list[str]:
    """Return one citation per DOI, page or name, preferring a reference that the authors request."""
    known: dict[str, SourceFacts] = {}
    for source in sorted(sources, key=lambda s: s.citation is None):
        known.setdefault(source.doi or source.page or source.name, source)
    return list(dict.fromkeys(citation(s) for s in known.values()))


def _source(source: SourceFacts) -> dict[str, Any]:
    return {
        "name": source.name,
        "role": source.role,
        "series": source.series,
        "license": stated(source.license, f"the licence of {source.name} (spec: origin.license)"),
        "spdx": normal(source.license),
        "doi": source.doi,
        "page": source.page,
    }

"""Say where the data came from and what was done to them, in the terms of PROV-O (https://www.w3.org/TR/prov-o/)."""

from builder.catalog.facts import Facts, SourceFacts
from builder.model.canonical import Json
from builder.model.licenses import license_url


def derived_from(facts: Facts) -> list[Json]:
    """Return the sources as entities, each with its DOI or page, its licence and how to cite it."""
    found: dict[Json, Json] = {}
    for source in sorted(facts.sources, key=lambda s: s.citation is None):  # one entry a licence, with its citation
        entity = _entity(source)
        found.setdefault((source.doi or source.page or source.name, entity.get("license")), entity)
    return list(found.values())


def generated_by(facts: Facts) -> list[Json]:
    """Return the activities that made the dataset: collection, annotation and preprocessing, with their agents.

    Who collected the images is named only where the spec states it; the programs and the readers of the labels are
    those that the labels themselves record, or that the spec states.
    """
    said = facts.statement
    sources = "; ".join(dict.fromkeys(s.name for s in facts.sources))
    collected = said.collection or (f"Taken from {sources}" if sources else None)
    collectors = [_agent("prov:Agent", said.collected_by)] if said.collected_by else []
    labelled = "; ".join(filter(None, (*facts.annotation, said.annotation.protocol)))
    prepared = "; ".join((*facts.deidentification, *facts.preprocessing, *filter(None, (facts.sampling,))))
    return [
        _activity(name, told, agents)
        for name, told, agents in (
            ("Collection", collected, collectors),
            ("Annotation", labelled, annotating(facts, None)),
            ("Preprocessing", prepared, [_agent("prov:SoftwareAgent", "builder")]),
        )
        if told
    ]


def made_labels(facts: Facts, label: str) -> Json:
    """Return who made a label ("": several labels), and that annotation made it; {} where neither is known."""
    agents = annotating(facts, label or None)
    if not agents:
        return {}
    return {
        "prov:wasAttributedTo": agents,
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": "Annotation"},
    }


def annotating(facts: Facts, label: str | None) -> list[Json]:
    """Return the agents behind one label, or behind all: people as the spec or the labels tell, and programs."""
    said = facts.statement.annotation
    evidence = [e for e in facts.evidence if label is None or e.label == label]
    readers = [f"{e.readers} named reader{'s' if e.readers > 1 else ''} of {e.label}" for e in evidence if e.readers]
    programs = [said.tools] if said.tools else [tool.value for e in evidence for tool in e.tools if tool.value]
    people = [said.annotators] if said.annotators else readers
    return [
        *(_agent("prov:Agent", name) for name in dict.fromkeys(people)),
        *(_agent("prov:SoftwareAgent", name) for name in dict.fromkeys(programs)),
    ]


def _entity(source: SourceFacts) -> Json:
    address = f"https://doi.org/{source.doi}" if source.doi else source.page
    entity: Json = {
        "@type": "prov:Entity",
        "@id": address,
        "prov:label": source.name,
        "identifier": address if source.doi else None,
        "license": license_url(source.license) if source.license else None,
        "citation": source.citation,
    }
    return {name: value for name, value in entity.items() if value}


def _activity(name: str, told: str, agents: list[Json]) -> Json:
    activity: Json = {"@type": "prov:Activity", "prov:label": name, "description": told}
    return activity | ({"prov:wasAssociatedWith": agents} if agents else {})


def _agent(kind: str, name: str) -> Json:
    return {"@type": kind, "prov:label": name}

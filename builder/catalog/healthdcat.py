"""Describe the dataset for catalogues of the European Health Data Space: HealthDCAT-AP, as JSON-LD."""

from builder.catalog.facts import Facts
from builder.catalog.statement import Agent
from builder.model.canonical import Json
from builder.model.licenses import license_url

CONTEXT: Json = {
    "adms": "http://www.w3.org/ns/adms#",
    "dcat": "http://www.w3.org/ns/dcat#",
    "dcatap": "http://data.europa.eu/r5r/",
    "dct": "http://purl.org/dc/terms/",
    "dpv": "https://w3id.org/dpv#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "healthdcatap": "http://healthdataportal.eu/ns/health#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "vcard": "http://www.w3.org/2006/vcard/ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}

LEGISLATION = "http://data.europa.eu/eli/reg/2025/327/oj"
AUTHORITY = "http://publications.europa.eu/resource/authority/"


def healthdcat(facts: Facts) -> Json:
    """Return the dataset as a ``dcat:Dataset``; without ``catalog.health_catalogue`` it lacks what only people know."""
    said = facts.statement
    size = sum(file.bytes for file in facts.files) + facts.shards.bytes
    origin = said.collection or "; ".join(dict.fromkeys(s.name for s in facts.sources))
    ages = facts.ranges.get("age_years")
    record: Json = {
        "@context": CONTEXT,
        "@id": f"https://doi.org/{said.identifier}" if said.identifier else said.page,
        "@type": "dcat:Dataset",
        "dct:title": said.title or facts.name,
        "dct:description": facts.description,
        "dct:identifier": _typed(f"https://doi.org/{said.identifier}", "anyURI") if said.identifier else None,
        "dct:issued": _typed(said.published, "date") if said.published else None,
        "dcat:version": facts.version,
        "dcat:keyword": list(dict.fromkeys((*said.keywords, *facts.modalities))),
        "dcat:landingPage": _at(said.page) if said.page else None,
        "dcat:theme": _at(AUTHORITY + "data-theme/HEAL"),
        "dcatap:applicableLegislation": _at(LEGISLATION),
        "dct:creator": [{"@type": "foaf:Agent", "foaf:name": name} for name in said.creators],
        "dct:provenance": _labelled("dct:ProvenanceStatement", origin) if origin else None,
        "dct:source": [_at(f"https://doi.org/{doi}") for doi in dict.fromkeys(s.doi for s in facts.sources if s.doi)],
        "dpv:hasLegalBasis": _labelled("dpv:LegalBasis", said.legal_basis) if said.legal_basis else None,
        "healthdcatap:numberOfRecords": _count(facts.samples),
        "healthdcatap:numberOfUniqueIndividuals": _count(facts.persons),
        "healthdcatap:minTypicalAge": _count(int(ages.low)) if ages else None,
        "healthdcatap:maxTypicalAge": _count(int(ages.high)) if ages else None,
        "dcat:distribution": _distribution(said.page, size, facts.license) if said.page else None,
        **_stated(facts),
    }
    return {name: value for name, value in record.items() if value not in (None, [], "")}


def _stated(facts: Facts) -> Json:
    """Return what only people know."""
    said = facts.statement.health_catalogue
    if said is None:
        return {}
    holder = _agent(said.holder) | {
        "healthdcatap:publisherType": _at(said.holder.type),
        "healthdcatap:publisherNote": said.holder.note,
        "healthdcatap:trustedDataHolder": said.holder.trusted,
    }
    return {
        "dct:accessRights": _at(f"{AUTHORITY}access-right/{said.access.upper()}"),
        "dct:publisher": holder,
        "dct:spatial": _at(said.place),
        "dct:type": _at(said.kind),
        "dcat:contactPoint": {
            "@type": "vcard:Kind",
            "vcard:fn": said.contact.name,
            "vcard:hasURL": _at(said.contact.homepage),
            "vcard:hasEmail": _at(f"mailto:{said.contact.email}"),
        },
        "dpv:hasPurpose": [_at(term) for term in said.purposes],
        "healthdcatap:hdab": _agent(said.body),
        "healthdcatap:healthCategory": [_at(term) for term in said.categories],
        "healthdcatap:healthTheme": [_at(term) for term in said.themes],
        "adms:sample": {"@type": "dcat:Distribution", "dcat:accessURL": _at(said.sample)},
    }


def _distribution(page: str, size: int, license: str) -> Json:
    return {
        "@type": "dcat:Distribution",
        "dcat:accessURL": _at(page),
        "dcat:byteSize": _count(size),
        "dct:format": _labelled("dct:MediaTypeOrExtent", "Zarr v3 and Parquet"),
        "dct:license": _at(license_url(license)),
        "dct:rights": _labelled("dct:RightsStatement", license),
        "dcatap:applicableLegislation": _at(LEGISLATION),
    }


def _agent(agent: Agent) -> Json:
    return {
        "@type": "foaf:Agent",
        "foaf:name": agent.name,
        "foaf:homepage": _at(agent.homepage),
        "foaf:mbox": _at(f"mailto:{agent.email}"),
    }


def _at(address: str) -> Json:
    return {"@id": address}


def _labelled(kind: str, text: str) -> Json:
    return {"@type": kind, "rdfs:label": text}


def _typed(value: str, kind: str) -> Json:
    return {"@type": f"xsd:{kind}", "@value": value}


def _count(number: int) -> Json:
    return {"@type": "xsd:nonNegativeInteger", "@value": str(number)}

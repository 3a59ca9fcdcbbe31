"""The Croissant record against the text of its standards: every term is defined, and stands where it may stand."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from builder.catalog.croissant import CONTEXT, croissant
from builder.catalog.facts import EvidenceFacts, ValueCount
from tests.catalog.test_catalog import FULL, facts

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # rdflib is about to drop what its JSON-LD parser calls

TERMS = YAML(typ="safe", pure=True).load(Path(__file__).with_name("croissant_terms.yaml").read_text("utf-8"))
NAMESPACES = TERMS["namespaces"]
READ = EvidenceFacts("tumor", (ValueCount("single_reader", 3),), 2, (ValueCount("Editor 3", 3),))


@pytest.fixture
def record(stored: Any) -> dict[str, Any]:
    _, bare = stored
    statement = FULL["statement"].model_copy(update={"annotation": type(FULL["statement"].annotation)(protocol="p")})
    return json.loads(json.dumps(croissant(facts(bare, **{**FULL, "statement": statement, "evidence": (READ,)}))))


def faults(record: dict[str, Any]) -> list[str]:
    """Return what the texts of the standards do not allow in a record."""
    import rdflib

    graph = rdflib.Graph().parse(data=json.dumps(record), format="json-ld")
    found = [*_wrong_terms(graph), *_wrong_places(graph), *_wrong_numbers(record)]
    return [*found, *(f"{name} is missing" for name in (*TERMS["required"], *TERMS["neurips"]) if name not in record)]


def _wrong_terms(graph: Any) -> list[str]:
    known = {
        NAMESPACES["dct"] + "conformsTo", NAMESPACES["rdf"] + "type",
        *(NAMESPACES["cr"] + name for name in TERMS["croissant"]["properties"]),
        *(NAMESPACES["rai"] + name for name in TERMS["rai"]),
        *(NAMESPACES[space] + name for space in ("prov", "odrl", "sc") for name in TERMS[space]["properties"]),
    }  # fmt: skip
    classes = {
        *(NAMESPACES["cr"] + name for name in TERMS["croissant"]["classes"]),
        *(NAMESPACES[space] + name for space in ("prov", "odrl", "sc") for name in TERMS[space]["classes"]),
    }
    used = {str(p) for _, p, _ in graph}
    kinds = {str(o) for _, p, o in graph if str(p) == NAMESPACES["rdf"] + "type"}
    types = {str(o) for _, p, o in graph if str(p) == NAMESPACES["cr"] + "dataType"}
    types -= {NAMESPACES["cr"] + name for name in TERMS["croissant"]["types"]}
    unknown = [f"no such property: {p}" for p in sorted(used - known)]
    return unknown + [f"no such class: {c}" for c in sorted((kinds | types) - classes)]


def _wrong_places(graph: Any) -> list[str]:
    """Return properties of PROV-O and ODRL whose subject or value is of another class than the standard says."""
    kind = {}
    for s, p, o in graph:
        if str(p) == NAMESPACES["rdf"] + "type":
            kind.setdefault(s, set()).add(str(o))
    wrong = []
    for s, p, o in graph:
        space, name = next(((n, str(p)[len(u) :]) for n, u in NAMESPACES.items() if str(p).startswith(u)), ("", ""))
        if space == "prov":
            of, values = TERMS["prov"]["properties"].get(name, [[], []])
            for node, allowed in ((s, of), (o, values)):
                if allowed and not kind.get(node, set()) & {NAMESPACES["prov"] + c for c in allowed}:
                    wrong.append(f"{name}: found {kind.get(node)}, expected {allowed}")
        if space == "odrl" and TERMS["odrl"]["properties"].get(name):
            allowed = {NAMESPACES["odrl"] + TERMS["odrl"]["properties"][name]}
            wrong += [f"{name}: expected {allowed}"] * (not kind.get(o, set()) & allowed)
    constraint = NAMESPACES["odrl"] + "Constraint"
    for node in (n for n, kinds in kind.items() if constraint in kinds):
        has = {
            str(p)[len(NAMESPACES["odrl"]) :] for p in graph.predicates(node) if str(p).startswith(NAMESPACES["odrl"])
        }
        wrong += [f"a constraint has {sorted(has)}"] * (has != set(TERMS["odrl"]["constraint"]))
    return wrong


def _wrong_numbers(record: dict[str, Any]) -> list[str]:
    """Return RAI properties with more values than their cardinality allows, or of another type."""
    types = {"Text": str, "Boolean": bool, "DateTime": str}
    wrong = []
    for name, (cardinality, kind) in TERMS["rai"].items():
        value = record.get(f"rai:{name}")
        values = value if isinstance(value, list) else [] if value is None else [value]
        if cardinality == "ONE" and isinstance(value, list):
            wrong.append(f"{name} is a list")
        if any(not isinstance(v, types[kind]) for v in values):
            wrong.append(f"{name} is no {kind}")
    return wrong


def test_the_record_keeps_to_the_texts(record: dict[str, Any]) -> None:
    assert faults(record) == []
    spaces = {name: uri for name, uri in CONTEXT.items() if isinstance(uri, str) and name in NAMESPACES}
    assert spaces == {name: uri for name, uri in NAMESPACES.items() if name in spaces}
    assert set(spaces) >= {"cr", "rai", "prov", "odrl", "dct", "sc"}
    assert CONTEXT["duo"] == "http://purl.obolibrary.org/obo/DUO_"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("rai:hasSyntheticData",), "no"),
        (("rai:dataSocialImpact",), ["a", "b"]),
        (("rai:socialImpact",), "a"),
        (("prov:wasDerivedfrom",), [{"@type": "prov:Entity", "@id": "https://doi.org/10.1/a"}]),
        (("prov:wasGeneratedBy",), [{"@type": "prov:Agent", "prov:label": "someone"}]),
        (("prov:wasGeneratedBy", 0, "prov:wasAssociatedWith"), [{"@type": "prov:Activity", "prov:label": "someone"}]),
        (("usageInfo", -1, "odrl:permission", 0, "odrl:constraint", 0, "odrl:operator"), None),
        (("usageInfo", -1, "@type"), ["sc:CreativeWork", "odrl:Offers"]),
        (("recordSet", 0, "dataType"), "cr:Splits"),
        (("recordSet", 1, "field", 0, "cr:label"), "a"),
        (("url",), None),
        (("datePublished",), None),
    ],
)
def test_a_wrong_property_is_noticed(record: dict[str, Any], where: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(record)
    *way, last = where
    node: Any = changed
    for step in way:
        node = node[step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    assert faults(changed) != []


def test_sources_activities_and_agents_are_those_of_the_facts(record: dict[str, Any]) -> None:
    derived = {entity["prov:label"]: entity for entity in record["prov:wasDerivedFrom"]}
    assert len(record["prov:wasDerivedFrom"]) == 2, "images and labels of one collection are one source"
    assert derived["TCIA sarcoma"]["citation"] == "Vallieres 2015"
    assert derived["TCIA sarcoma"]["@id"] == "https://doi.org/10.7937/x"
    assert derived["TCIA sarcoma"]["license"] == "https://creativecommons.org/licenses/by/3.0/"
    assert derived["clinical"]["@id"] == "https://example.org/table"
    steps = {activity["prov:label"]: activity for activity in record["prov:wasGeneratedBy"]}
    assert list(steps) == ["Collection", "Annotation", "Preprocessing"]
    assert [a["prov:label"] for a in steps["Collection"]["prov:wasAssociatedWith"]] == ["a clinic"]
    assert steps["Annotation"]["prov:wasAssociatedWith"] == [
        {"@type": "prov:Agent", "prov:label": "2 named readers of tumor"},
        {"@type": "prov:SoftwareAgent", "prov:label": "Editor 3"},
    ]
    assert "resampled to 3 mm" in steps["Preprocessing"]["description"]


def test_splits_are_an_enumeration_and_labels_name_who_made_them(record: dict[str, Any]) -> None:
    sets = {one["@id"]: one for one in record["recordSet"]}
    names = sets["split_names"]
    assert (names["dataType"], names["key"]) == ("cr:Split", {"@id": "split_names/name"})
    assert names["data"] == [
        {"split_names/name": "train", "split_names/url": "cr:TrainingSplit"},
        {"split_names/name": "test", "split_names/url": "cr:TestSplit"},
    ]
    fields = {f["name"]: f for f in sets["index"]["field"]}
    assert fields["label.tumor.grade"]["dataType"] == ["sc:Text", "cr:Label"]
    assert fields["label.tumor.grade"]["prov:wasAttributedTo"][1]["prov:label"] == "Editor 3"
    assert "cr:Label" not in fields["age_years"]["dataType"]
    masks = next(part for part in record["distribution"] if part["@id"] == "shards/tumor")
    assert masks["prov:wasGeneratedBy"] == {"@type": "prov:Activity", "prov:label": "Annotation"}
    assert "prov:wasGeneratedBy" not in next(p for p in record["distribution"] if p["@id"] == "shards/image")


def test_conditions_of_use_are_terms_and_an_offer(record: dict[str, Any]) -> None:
    terms, offer = record["usageInfo"][:-1], record["usageInfo"][-1]
    assert [(t["termCode"], t["name"]) for t in terms] == [
        ("DUO_0000042", "general research use"), ("DUO_0000046", "non-commercial use only"),
    ]  # fmt: skip
    assert offer["odrl:permission"][0]["odrl:action"]["@id"] == "duo:0000042"
    assert offer["odrl:permission"][0]["odrl:constraint"][0]["odrl:rightOperand"] == {"@id": "duo:0000046"}


def test_what_nobody_stated_is_left_out(stored: Any) -> None:
    _, bare = stored
    record = croissant(facts(bare))
    asked = ("usageInfo", "rai:dataSocialImpact", "rai:hasSyntheticData", "prov:wasDerivedFrom", "prov:wasGeneratedBy")
    assert not {*asked} & {*record}
    assert not [one for one in record["recordSet"] if one["@id"] == "split_names"]

"""Check every record of a built dataset by the tool of its standard, and every number in it by the tables."""

import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from builder.catalog.documents import catalog
from builder.catalog.facts import Facts, parse_facts
from builder.catalog.healthdcat import healthdcat
from tests.catalog.recount import recount
from tests.catalog.test_catalog import FULL
from tests.catalog.test_croissant import faults as wrong_in_croissant
from tests.report.recount import numbers, spoiled

SHAPES = Path(__file__).with_name("healthdcat_ap_shapes.ttl")
OF_PEOPLE = {
    "accessRights", "contactPoint", "description", "distribution", "hasLegalBasis", "hasPurpose", "hdab",
    "healthCategory", "healthTheme", "identifier", "landingPage", "provenance", "publisher", "sample", "spatial",
    "type",
}  # fmt: skip
"""What the shapes ask for and only people can state, by the end of its name."""


def check_records(dataset: Path) -> None:
    """Each record is valid by the tool of its standard, and each number in it is that of the tables.

    What is missing must be what only people can state: stated, nothing is missing any more.
    """
    place = dataset / "versions" / (dataset / "CURRENT").read_text().strip() / "catalog"
    document = json.loads((place / "facts.json").read_bytes())
    (planned,) = dataset.with_name(f"{dataset.name}.private").glob("plan/*/cohort.parquet")
    private = pd.read_parquet(planned)
    assert recount(place.parent, document, private) == {}
    changed = spoiled(document)
    assert {path for path, _, _ in numbers(changed)} <= set(recount(place.parent, changed, private))
    facts = parse_facts(document)
    texts = catalog(facts)  # nothing but the facts enters a record, so that no number in one is another
    assert {name: (place / name).read_text() for name in texts} == texts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they call what rdflib and pandas are about to drop
        _check_croissant(place / "croissant.json")
        _check_datacite(place / "datacite.json")
        rocrate = pytest.importorskip("rocrate.rocrate", reason="pip install rocrate")
        assert rocrate.ROCrate(place).name == document["statement"]["title"]
        _check_health(facts, json.loads(texts["healthdcat-ap.json"]), place.parent)


def _check_croissant(path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    assert not mlcroissant.Dataset(jsonld=str(path)).metadata.ctx.issues.errors
    names = ("rai:dataSocialImpact", "rai:hasSyntheticData", "url", "creator", "datePublished")
    unstated = {f"{name} is missing" for name in names}  # only people know them
    assert set(wrong_in_croissant(json.loads(path.read_bytes()))) <= unstated


def _check_datacite(path: Path) -> None:
    schema = pytest.importorskip("datacite.schema45", reason="pip install datacite")
    faults = [error.message for error in schema.validator.iter_errors(json.loads(path.read_bytes()))]
    # the specs of the tests state no DOI of the dataset and no date
    assert all("is a required property" in fault or "TODO" in fault for fault in faults), faults


def _check_health(facts: Facts, record: dict[str, Any], version: Path) -> None:
    missing = _paths(record)
    assert missing <= OF_PEOPLE
    stated = replace(facts, description=facts.description or "d", statement=FULL["statement"])
    full = json.loads(json.dumps(healthdcat(stated)))
    assert _paths(full) == set()
    index, cohort = (pd.read_parquet(version / f"{name}.parquet") for name in ("index", "cohort"))
    ages = cohort[cohort.included].age_years.dropna() if "age_years" in cohort else pd.Series(dtype=float)
    manifest = json.loads((version / "dataset.json").read_bytes())
    stored = [
        version.parents[1] / "data" / s["fingerprint"] / o["path"] for s in manifest["shards"] for o in s["objects"]
    ]
    stored += [version / "catalog" / file.path for file in facts.files]
    told = {
        name.rpartition(":")[2]: int(value["@value"]) for name, value in full.items() if "Of" in name or "Age" in name
    }
    assert told == {
        "numberOfRecords": len(index), "numberOfUniqueIndividuals": index.person_key.nunique(),
        **({"minTypicalAge": int(ages.min()), "maxTypicalAge": int(ages.max())} if len(ages) else {}),
    }  # fmt: skip
    assert int(full["dcat:distribution"]["dcat:byteSize"]["@value"]) == sum(path.stat().st_size for path in stored)
    wrong = {**full, "healthdcatap:numberOfRecords": {"@type": "xsd:string", "@value": "3"}}
    assert _paths(wrong) == {"numberOfRecords"}


def _paths(record: dict[str, Any]) -> set[str]:
    """Return the ends of the names of the properties that the shapes find fault with."""
    import pyshacl
    from rdflib.namespace import SH

    _, found, _ = pyshacl.validate(json.dumps(record), data_graph_format="json-ld", shacl_graph=_shapes())
    return {str(path).replace("#", "/").rpartition("/")[2] for path in found.objects(None, SH.resultPath)}


@cache
def _shapes() -> Any:
    pytest.importorskip("pyshacl", reason="pip install pyshacl")
    import rdflib

    return rdflib.Graph().parse(SHAPES, format="turtle")

"""Documents of a federation: what was signed is what is read; anything else is refused, with a message that helps."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import BuilderError, LayoutError, PrivacyError, SpecError
from builder.federation.documents import (
    KINDS,
    Answer,
    Copies,
    Levels,
    Marks,
    Offer,
    Plan,
    Quota,
    Receipt,
    Request,
    Row,
    Signature,
    Spec,
    Table,
    Volume,
    digest,
    published_schemas,
    read,
    signed_bytes,
    written,
)
from builder.federation.signing import load_key, make_key, public_of, read_public, read_signed, sign
from tests.endtoend.trees import ROOT

HEAD: dict[str, Any] = {"federation": "lungs", "sequence": 1, "nonce": "0" * 32}
SHA = "a" * 64
KEYED = "0" * 26
STRATA = Table(
    name="strata",
    columns=[Levels(name="sex", levels=["F", "M"])],
    rows=[Row(levels=["F"], persons=12), Row(levels=["M"], persons=None)],
)
PUBLIC = "ed25519:" + "b" * 64
EXAMPLES = (
    Spec(**HEAD, spec="name: lungs\n", columns={"sex": ["F", "M"]}, sites={"north": PUBLIC}),
    Offer(**HEAD, site="north", spec=SHA, k=5, strata=STRATA, tables=[], lock={"numpy": "2"}, withheld=[]),
    Plan(
        **HEAD, spec=SHA, offers={"north": SHA}, ratios={"train": 0.8, "test": 0.2},
        columns=[Levels(name="sex", levels=["F", "M"])],
        quotas={"north": [Quota(levels=["F"], counts={"train": 10, "test": 2})]}, held_out={}, rules=[], differences=[],
        tables=[],
    ),
    Receipt(
        **HEAD, site="north", plan=SHA, version="c" * 32, counted="c" * 32, k=5, strata=STRATA, tables=[], lock={},
        withheld=[],
    ),
    Marks(**HEAD, site="north", plan=SHA, readers=["south"], check=KEYED,
          volumes=[Volume(exact=KEYED, planes=[KEYED], bands=[])]),
    Request(**HEAD, site="north", to="south", spec=SHA, identifiers="issuer_and_patient_id", membership=False,
            check=KEYED, persons=9, message="0a"),
    Answer(**HEAD, site="south", to="north", request=SHA, membership=False, setup="00", message="ff"),
    Copies(**HEAD, site="north", plan=SHA, k=5, tables=[STRATA]),
)  # fmt: skip


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "north.key"
    make_key(path)
    return load_key(path)


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda d: d.kind)
def test_what_is_signed_is_read_again(document, key):
    data = written(document, sign(document, key))
    kind = KINDS[document.kind]
    assert (
        read_signed(
            data,
            kind,  # type: ignore[type-var]
            where="file",
            pinned={public_of(key): "North"},
        )
        == document
    )
    # the library verifies the same bytes when it is asked directly
    signature = json.loads(data)["signature"]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["key"].removeprefix("ed25519:")))
    public.verify(bytes.fromhex(signature["value"]), signed_bytes(document))
    jsonschema.validate(json.loads(data), published_schemas()[document.kind])


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda d: d.kind)
def test_the_schema_refuses_what_is_added(document):
    facts = json.loads(written(document))
    facts["document"]["names"] = ["somebody"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(facts, published_schemas()[document.kind])


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda d: d.kind)
def test_a_site_prints_the_schema_of_what_leaves(document):
    done = CliRunner().invoke(app, ["site", "schema", document.kind])
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(written(document)), schema)


def test_there_is_no_schema_of_another_kind():
    done = CliRunner().invoke(app, ["site", "schema", "image"])
    assert isinstance(done.exception, SpecError)
    assert "expected one of spec, offer, plan, receipt" in str(done.exception)


def _lines(change):
    return lambda data: (
        json.dumps(change(json.loads(data)), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    )


def _more(facts):
    facts["document"]["strata"]["rows"][0]["persons"] += 1
    return facts


def _as_plan(facts):
    facts["document"]["kind"] = "plan"
    return facts


def _format(facts):
    facts["document"]["format"] = 4
    return facts


def _fraction(facts):
    facts["document"]["strata"]["rows"][0]["persons"] = 1.5
    return facts


def _extra(facts):
    facts["document"]["note"] = "see attachment"
    return facts


def _unsigned(facts):
    facts["signature"] = None
    return facts


TWICE = b'"k": 5,'
ALTERED = {
    "changed": (_lines(_more), LayoutError, "changed after North signed it"),
    "as another kind": (_lines(_as_plan), LayoutError, "found a plan, expected an offer"),
    "of another format": (_lines(_format), LayoutError, "found format 4"),
    "with half a person": (_lines(_fraction), LayoutError, "expected a whole number"),
    "with a note": (_lines(_extra), LayoutError, "found the unknown key 'note'"),
    "without a signature": (_lines(_unsigned), PrivacyError, "without a signature"),
    "with a blank": (lambda data: data + b" ", LayoutError, "to the byte"),
    "with a key twice": (lambda data: data.replace(TWICE, TWICE * 2), LayoutError, "to the byte"),
    "cut off": (lambda data: data[:100], LayoutError, "cut off"),
    "a list": (lambda data: b"[]", LayoutError, "found no document"),
    "too large": (lambda data: data + b" " * (5 << 20), LayoutError, "expected at most"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_files_are_refused(name, key):
    change, error, words = ALTERED[name]
    offer = EXAMPLES[1]
    data = written(offer, sign(offer, key))
    changed = change(data)
    assert changed != data
    with pytest.raises(error, match=words) as found:
        read_signed(changed, Offer, where="north/offer.json", pinned={public_of(key): "North"})
    assert str(found.value).startswith("north/offer.json: found ") or "document." in str(found.value)
    assert "expected" in str(found.value) or "ask for" in str(found.value)


def test_a_foreign_key_is_refused(key, tmp_path):
    make_key(tmp_path / "other.key")
    offer = EXAMPLES[1]
    data = written(offer, sign(offer, load_key(tmp_path / "other.key")))
    with pytest.raises(PrivacyError, match=r"expected the key of North; .*telephone"):
        read_signed(data, Offer, where="offer.json", pinned={public_of(key): "North"})


def test_a_signature_of_one_kind_does_not_pass_for_another(key):
    """The same fields, signed as a spec, are no plan: what is signed begins with the kind."""
    spec, plan = EXAMPLES[0], EXAMPLES[2]
    data = written(plan, Signature(key=public_of(key), value=sign(spec, key).value))
    with pytest.raises(LayoutError, match="changed after"):
        read_signed(data, Plan, where="plan.json", pinned={public_of(key): "us"})
    assert signed_bytes(spec).startswith(b"builder federation 3 spec\n")


def test_documents_that_say_the_same_differ_by_their_nonce():
    one = EXAMPLES[1]
    other = one.model_copy(update={"nonce": "1" * 32})
    assert digest(one) != digest(other)
    assert read(written(one), Offer, where="")[0] == one


def test_keys_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "north.key"
    public = make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_public(str(tmp_path / "north.key.pub"), where="--site") == public == public_of(load_key(path))
    with pytest.raises(SpecError, match="never written over"):
        make_key(path)
    path.chmod(0o640)
    with pytest.raises(SpecError, match="mode 0640"):
        load_key(path)


def test_keys_stay_out_of_datasets(tmp_path):
    (tmp_path / "CURRENT").write_text("x")
    (tmp_path / "data").mkdir()
    with pytest.raises(SpecError, match="outside of datasets"):
        make_key(tmp_path / "data" / "north.key")
    assert not (tmp_path / "data" / "north.key").exists()


@pytest.mark.parametrize("content", [b"", b"secret words of mine", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_no_message_shows_a_key(content, tmp_path: Path):
    path = tmp_path / "north.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BuilderError) as found:
        load_key(path)
    assert content.decode() not in str(found.value) or not content


@pytest.mark.parametrize("text", ["ed25519:zz", "ed25519:" + "A" * 64, "nowhere.pub"])
def test_public_keys_are_checked(text):
    with pytest.raises(SpecError, match="--site: found"):
        read_public(text, where="--site")


def test_the_offer_on_the_page_is_one():
    """It is read like any other file: its text, its schema and its signature, to the byte."""
    page = (ROOT / "docs" / "federation.md").read_text()
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    jsonschema.validate(json.loads(text), published_schemas()["offer"])
    signer = json.loads(text)["signature"]["key"]
    offer = read_signed(text.encode(), Offer, where="page", pinned={signer: "the site"})
    assert all(row.persons is None or row.persons >= offer.k for table in offer.tables for row in table.rows)

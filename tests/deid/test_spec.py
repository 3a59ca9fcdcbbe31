"""The spec's block: a reference to the secret, never the secret."""

import base64
import hashlib
import pickle
import random

import pytest
from pydantic import ValidationError

from builder.deid import Deid, resolve_key
from builder.deid.profile import Profile
from builder.errors import SpecError
from builder.model.keyed import Key
from builder.model.secrets import check_strength
from builder.specfile import parse_spec
from tests.endtoend.trees import KEY

SECRET = "9f1c3a7b5d2e8f60a4c1b39d7e5f0a28"


def test_a_literal_secret_is_refused_and_not_repeated() -> None:
    for value in (SECRET, "$BUILDER_KEY", "${env:}", "${env:BUILDER_A} ", "x${env:B}", "${file:}", "${other:A}"):
        with pytest.raises(ValidationError) as caught:
            Deid(patient_key=value)
        assert "reference" in str(caught.value)
        assert SECRET not in str(caught.value)
        with pytest.raises(SpecError):
            resolve_key(value, {"BUILDER_A": SECRET})


def test_the_key_comes_from_the_environment_or_a_file() -> None:
    assert resolve_key("${env:BUILDER_A}", {"BUILDER_A": SECRET + "\n"}) == Key(SECRET.encode())
    assert resolve_key("${file:/run/key}", {}, read=lambda path: f"{SECRET}\n".encode()) == Key(SECRET.encode())
    assert SECRET not in repr(resolve_key("${env:BUILDER_A}", {"BUILDER_A": SECRET}))


@pytest.mark.parametrize("environment", [{}, {"BUILDER_A": ""}, {"BUILDER_A": "short"}])
def test_the_message_about_a_missing_or_short_secret_says_what_to_do(environment: dict[str, str]) -> None:
    with pytest.raises(SpecError, match=r"deid\.patient_key"):
        resolve_key("${env:BUILDER_A}", environment)


REST = "deid: {patient_key: '${env:BUILDER_A}'}\nsamples: {kind: volumes}\nsplits: {ratios: {train: 1.0}}\n"

WEAK = [
    *("11" * 32, "abcd" * 8, "a" * 64, "passwordpasswordpassword"),
    *("correct horse battery staple", "hospital-key-2024-secret"),
    *("0123456789ABCDEF" * 2, "fedcba9876543210" * 2, "0" * 28 + "1234", "19560512" * 4),
    *("0" * 60 + "12ab", "31415926535897932384626433832795", "1a" * 16),
    *("Password1Password1Pass", "MyHospitalSecretKey2024", "Qwertyuiop1Qwertyuiop2xY", "Abcdefghijklmnopqrstuvwx1"),
    *("SpringfieldGeneral20240101", "Aa1Aa1Aa1Aa1Aa1Aa1Aa1Aa1", "SGVsbG8gSGVsbG8gSGVsbG8gSGVsbG8g" * 2),
]


HALF = "9f1c3a7b5d2e8f60a4c1b39d7e5f0a28"
PATTERNS = {
    "short pieces": ("c0ffee01" * 8, "c0ffee00" * 4, "0123456789abcdef" * 4, "00ff" * 16, "ab" * 32, "fedcba98" * 8),
    "halves": (HALF * 2, HALF + HALF[::-1], HALF + bytes.fromhex(HALF)[::-1].hex(), HALF[:16] * 2, HALF[:16] * 4),
    "counting": (bytes(range(32)).hex(), bytes(range(0, 64, 2)).hex(), bytes(range(255, 223, -1)).hex()),
    "steps": (bytes((7 * n + 3) % 256 for n in range(32)).hex(), "0369cf258be147ad" * 2),
    "doubled digits": ("00112233445566778899aabbccddeeff", "00112233445566778899aabbccddeeff" * 2),
    "turns": ("".join(f"{n:02x}{255 - n:02x}" for n in range(16)), "a1b2c3d4e5f60718293a4b5c6d7e8f90"),
    "numbers": ("".join(f"{n:08x}" for n in range(8)), "".join(f"{n * n % 256:02x}" for n in range(32))),
    "decimal digits": ("3141592653589793238462643383279502884197169399375105820974944592",),
    "few bytes": ("0000ff00ffff00ff00ff0000ffff00ffff00ff0000ff00ffff0000ff00ffffff",),
    "words in digits": ("deadbeefcafebabefeedfacebaadf00d", b"correct horse battery".hex()),
}


@pytest.mark.parametrize("kind", PATTERNS)
def test_a_secret_with_a_pattern_is_refused_in_every_form(kind: str) -> None:
    for secret in PATTERNS[kind]:
        raw = bytes.fromhex(secret)
        coded = (base64.b64encode(raw), base64.urlsafe_b64encode(raw).rstrip(b"="))
        digits = (secret.encode(), secret.upper().encode()) if len(secret) < 64 else ()
        for form in (*digits, raw, *coded):
            with pytest.raises(SpecError, match="could be guessed"):
                check_strength(form, where="key")


def test_datasets_that_were_begun_with_64_patterned_digits_can_grow() -> None:
    kinds = PATTERNS.keys() - {"few bytes", "numbers"}  # in these, most digits are one and the same
    for secret in (each for kind in kinds for each in PATTERNS[kind] if len(each) >= 64):
        assert check_strength(secret.encode(), where="key")


@pytest.mark.parametrize("secret", WEAK)
def test_a_secret_that_could_be_guessed_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SpecError, match="could be guessed") as caught:
        resolve_key("${env:BUILDER_A}", {"BUILDER_A": secret})
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "secret", ["9f1c3a7b5d2e8f60a4c1b39d7e5f0a28", "9F1C3A7B5D2E8F60A4C1B39D7E5F0A28f", "4bR9+x/Qw7LmZt2Ks8VdNg", KEY]
)
def test_a_random_secret_is_taken(secret: str) -> None:
    assert resolve_key("${env:BUILDER_A}", {"BUILDER_A": secret}).secret == secret.encode()
    raw = hashlib.sha256(secret.encode()).digest()
    assert resolve_key("${file:/run/key}", {}, read=lambda path: raw.strip()).secret == raw.strip()


def test_random_secrets_are_taken() -> None:
    draw, refused = random.Random(16), 0
    for _ in range(200):
        raw = draw.randbytes(32)
        for secret in (
            raw,
            raw[:16],
            raw.hex().encode(),
            raw[:16].hex().upper().encode(),
            base64.urlsafe_b64encode(raw),
        ):
            assert check_strength(secret, where="key")
        try:
            check_strength(base64.b64encode(raw[:16]).rstrip(b"="), where="key")
        except SpecError:
            refused += 1
    assert refused < 3


def test_a_spec_reads_only_variables_that_are_meant_for_it() -> None:
    with pytest.raises(SpecError, match=r"AWS_SECRET_ACCESS_KEY.*begins with BUILDER_") as caught:
        resolve_key("${env:AWS_SECRET_ACCESS_KEY}", {"AWS_SECRET_ACCESS_KEY": SECRET})
    assert SECRET not in str(caught.value)
    allowed = {"HOSPITAL_KEY": SECRET, "BUILDER_ALLOW_ENV": "OTHER, HOSPITAL_KEY"}
    assert resolve_key("${env:HOSPITAL_KEY}", allowed) == Key(SECRET.encode())


ADDRESSES = [
    "https://doe:hunter2@pacs.example/dicom-web",
    "http://:hunter2@127.0.0.1/",
    "https://doe:hunter2@2@pacs.example/",
    "s3://hunter2key:hunter2@bucket/x",
    "https://x.blob.core.windows.net/c/t.csv?sv=2020&sig=hunter2%3D",
    "https://bucket.s3.amazonaws.com/t.csv?X-Amz-Expires=9&X-Amz-Signature=hunter2",
    "https://pacs.example/?access_token=hunter2",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_secret_in_an_address_is_refused_and_not_shown(address: str) -> None:
    for block in (
        f"sources: [{{kind: dicomweb, url: '{address}'}}]",
        f"sources: [{{kind: folder, url: /x}}]\nclinical: [{{url: '{address}', person_id: a, columns: {{}}}}]",
        f"sources: [{{kind: folder, url: /x, origin: {{landing_page: '{address}'}}}}]",
    ):
        with pytest.raises(SpecError, match=r"spec:\d+:\d+: \S+: found an address with a password") as caught:
            parse_spec(f"name: x\nlicense: CC0-1.0\n{block}\n{REST}".encode())
        assert "hunter2" not in str(caught.value)
    plain = "sources: [{kind: remote_folder, url: 'ssh://doe@host/x'}, {kind: dicomweb, url: 'https://h/?a=b:c@d'}]"
    assert parse_spec(f"name: x\nlicense: CC0-1.0\n{plain}\n{REST}".encode())


def test_an_unreadable_file_is_explained_without_its_path() -> None:
    def fail(path: str) -> bytes:
        raise FileNotFoundError(path)

    with pytest.raises(SpecError, match="FileNotFoundError") as caught:
        resolve_key("${file:/home/doe/key}", {}, read=fail)
    assert "doe" not in str(caught.value)
    with pytest.raises(SpecError, match="env:NAME"):
        resolve_key("${file:/run/key}", {})


@pytest.mark.parametrize(
    "block",
    [
        {"most_days": 3654},
        {"text": {"box_classes": {"pattern": "(?=a)"}}},
        {"text": {"box_classes": {"keep": "all"}}},
        {"options": ["retain_longitudinal_full_dates", "retain_longitudinal_modified_dates"]},
        {"options": ["retain_everything"]},
        {"burned_in": "ignore"},
        {"burned_in": "mask"},
        {"mask_regions": [{"rows": [0, 1], "columns": [0, 1], "size": [4, 4]}]},
        {"burned_in": "mask", "mask_regions": [{"rows": [0, 9], "columns": [0, 1], "size": [4, 4]}]},
        {"reviewed": ["all of them"]},
        {"unknown": 1},
    ],
)
def test_faults_are_refused(block: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Deid.model_validate({"patient_key": "${env:BUILDER_A}", **block})


def test_order_does_not_matter_and_options_are_the_profiles() -> None:
    one = Deid.model_validate({"patient_key": "${env:BUILDER_A}", "retain": ["sex", "age_years"]})
    two = Deid.model_validate({"patient_key": "${env:BUILDER_A}", "retain": ["age_years", "sex", "sex"]})
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert one.profile == Profile()


ANONYMOUS = """
name: groups
license: CC0-1.0
sources: [{kind: folder, url: "/nowhere"}]
clinical:
  - url: "/nowhere.csv"
    person_id: id
    columns: {stage: {from: S, type: category, levels: [I, II]}, mass: {from: M, type: number}}
deid: {patient_key: "${env:BUILDER_KEY}", retain: [sex, site, age_years, age_band], anonymity: {ANONYMITY}}
samples: {kind: volumes}
"""


@pytest.mark.parametrize(
    ("anonymity", "message"),
    [
        ("{columns: [sexx]}", "anonymity.columns: found 'sexx', .* did you mean 'sex'"),
        ("{columns: [patient_id]}", "anonymity.columns: found 'patient_id'"),
        ("{sensitive: [stages]}", "anonymity.sensitive: found 'stages'"),
        ("{groups: {country: {a: b}}}", "anonymity.groups: found 'country'"),
        ("{groups: {mass: {a: b}}}", "anonymity.groups: found 'mass', which is no released column of text"),
        ("{least_values: 2}", "least_values or most_distance without sensitive"),
    ],
)
def test_anonymity_refuses_what_would_do_nothing(anonymity: str, message: str) -> None:
    """A misspelt column was ignored, so that a plan said less than the spec asks."""
    with pytest.raises(SpecError, match=message):
        parse_spec(ANONYMOUS.replace("{ANONYMITY}", anonymity).encode())


def test_anonymity_takes_released_columns() -> None:
    asked = "{columns: [later.kvp], sensitive: [stage, mass], groups: {site: {a: b}}, least_values: 2, age_bands: 20}"
    spec = parse_spec(ANONYMOUS.replace("{ANONYMITY}", asked).encode())
    assert spec.deid.anonymity.age_bands == 20
    with pytest.raises(SpecError, match="age_bands with age_years in retain and no age_band"):
        parse_spec(ANONYMOUS.replace(", age_band]", "]").replace("{ANONYMITY}", asked).encode())


def test_decisions_about_faces_need_a_search() -> None:
    """They would say nothing where faces stay, and a person would believe that somebody looks."""
    for option in ("face_review: all", "face_decisions: heads.csv"):
        text = ANONYMOUS.replace("anonymity: {ANONYMITY}", f"faces: FACES, {option}")
        with pytest.raises(SpecError, match="expected faces: remove or refuse"):
            parse_spec(text.replace("FACES", "keep").encode())
        assert parse_spec(text.replace("FACES", "remove").encode()).deid.faces == "remove"

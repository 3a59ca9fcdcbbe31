"""Profiles: the examples are valid, faults are named, and nothing goes unencrypted beyond this machine."""

import ssl
from pathlib import Path

import pytest

from builder.errors import SpecError
from builder.run.clusters import CLUSTERS, load_cluster
from builder.run.clusters.kubernetes import render_cluster, render_job

PROFILES = sorted((Path(__file__).resolve().parents[2] / "cluster").glob("*.yaml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_examples_are_valid(path: Path) -> None:
    assert load_cluster(str(path)).kind == path.stem


def test_every_kind_but_serial_has_an_example() -> None:
    assert {p.stem for p in PROFILES} == set(CLUSTERS) - {"serial"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind: slurm\nworkers: 4\nmemory_gib: 2\ninterface: ib0\n", "tls"),
        ("kind: ssh\nhosts: [node1]\n", "tls"),
        ("kind: address\nurl: tcp://10.0.0.5:8786\n", "tls://"),
        ("kind: address\nurl: tls://10.0.0.5:8786\n", "builder certs"),
        ("kind: local\nworker: 3\n", "worker"),
        ("kind: pbs\n", "pbs"),
        ("kind: kubernetes\nimage: x\nworkers: 1\nmemory_gib: 1\n", "tls"),
        ("{", "YAML"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=named):
        load_cluster(str(path))


@pytest.mark.parametrize("text", ["tcp://10.0.0.5:8786", "tls://10.0.0.5:8786", "nowhere", "missing.yaml"])
def test_addresses_without_tls_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        load_cluster(text)


def test_rendered_objects_pass_the_published_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    profile = load_cluster(str(next(p for p in PROFILES if p.stem == "kubernetes")))
    job = render_job(profile, ["builder", "build", "/specs/x.yaml", "--to", "s3://b/x"], identity="0123abcd")
    cluster = render_cluster(profile, workers=3)["spec"]
    pods = [cluster[role]["spec"] for role in ("worker", "scheduler")]
    documents = [
        job,
        *({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod} for pod in pods),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": cluster["scheduler"]["service"]},
    ]
    for document in documents:
        validate.validate(document, "1.31", strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["image_"] = "x"
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.31", strict=True)


def test_certificates_form_a_chain_for_both_ends(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from builder.run.certs import write_certificates

    made = write_certificates(tmp_path / "certs")
    assert made.key_file.stat().st_mode & 0o077 == 0
    for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        context = ssl.create_default_context(purpose, cafile=str(made.ca_file))
        context.load_cert_chain(made.cert_file, made.key_file)
    with pytest.raises(SpecError, match=r"found ca\.pem"):
        write_certificates(tmp_path / "certs")

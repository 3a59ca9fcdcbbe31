"""Profiles: the examples are valid, faults are named, and nothing goes unencrypted beyond this machine."""

import ssl
from pathlib import Path

import pytest

from builder.errors import SpecError
from builder.run.clusters import CLUSTERS, load_cluster
from builder.run.clusters.jobs import DIALECTS
from builder.run.clusters.kubernetes import Kubernetes, render_cluster, render_job

PROFILES = sorted((Path(__file__).resolve().parents[2] / "cluster").glob("*.yaml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_examples_are_valid(path: Path) -> None:
    assert load_cluster(str(path)).kind == path.stem


def test_every_kind_but_serial_has_an_example() -> None:
    assert {p.stem for p in PROFILES} == set(CLUSTERS) - {"serial", "moab", "sge", "lsf", "oar"}  # these are as pbs


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind: slurm\nworkers: 4\nmemory_gib: 2\ninterface: ib0\n", "tls"),
        ("kind: ssh\nhosts: [node1]\n", "tls"),
        ("kind: address\nurl: tcp://10.0.0.5:8786\n", "tls://"),
        ("kind: address\nurl: tls://10.0.0.5:8786\n", "builder certs"),
        ("kind: local\nworker: 3\n", "worker"),
        ("kind: condor\n", "condor"),
        ("kind: local\nmemory_gib: 0.01\n", "memory_gib: found 0.01, expected at least 0.25"),
        ("kind: local\nlarge: {memory_gib: 0.1}\n", "memory_gib: found 0.1, expected at least 0.25"),
        ("kind: slurm\nworkers: 4\nmemory_gib: -1\n", "memory_gib: found -1, expected at least 0.25"),
        ("kind: pbs\nworkers: 1\nmemory_gib: 1\ncores: 2\n", "resources"),
        ("kind: kubernetes\nimage: x\nworkers: 1\nmemory_gib: 1\n", "tls"),
        ("{", "YAML"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=named):
        load_cluster(str(path))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tcp://127.0.0.1", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:", "expected tcp://HOST:PORT"),
        ("tcp://:8786", "expected tcp://HOST:PORT"),
        ("tcp://", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:port", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:99999", "expected tcp://HOST:PORT"),
        ("tcp://[::1]", "expected tcp://HOST:PORT"),
        ("tls://127.0.0.1", "expected tls://HOST:PORT"),
        ("tcp:/127.0.0.1:8786", "expected serial, local, tcp://HOST:PORT"),
        ("127.0.0.1:8786", "expected serial, local, tcp://HOST:PORT"),
        ("http://127.0.0.1:8786", "expected serial, local, tcp://HOST:PORT"),
        ("locla", "expected serial, local, tcp://HOST:PORT"),
        ("", "expected serial, local, tcp://HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_one_is_named_at_once(text: str, named: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_cluster(text)
    assert named in str(caught.value)
    assert f"found {text!r}" in str(caught.value)


@pytest.mark.parametrize("text", ["tcp://10.0.0.5:8786", "tls://10.0.0.5:8786", "nowhere", "missing.yaml"])
def test_addresses_without_tls_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        load_cluster(text)


def test_rendered_objects_pass_the_published_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    profile = load_cluster(str(next(p for p in PROFILES if p.stem == "kubernetes")))
    assert isinstance(profile, Kubernetes)
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


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("slurm", ["#SBATCH -p long", "#SBATCH -A us", "#SBATCH -t 1-02:30:00", "#SBATCH --cpus-per-task=1"]),
        ("pbs", ["#PBS -q long", "#PBS -A us", "#PBS -l select=1:ncpus=1:mem=4096MB", "#PBS -l walltime=26:30:00"]),
        ("moab", ["#PBS -q long", "#PBS -A us", "#PBS -l walltime=26:30:00"]),
        ("sge", ["#$ -q long", "#$ -P us", "#$ -l h_rt=26:30:00"]),
        ("lsf", ["#BSUB -q long", '#BSUB -P "us"', "#BSUB -W 26:30"]),
        ("oar", ["#OAR -q long", "#OAR --project us"]),
    ],
)
def test_queues_are_asked_in_their_own_words(kind: str, lines: list[str], tmp_path: Path) -> None:
    """The head of the job's script, as dask-jobqueue writes it; no queue is asked."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    path = tmp_path / "profile.yaml"
    path.write_text(
        f"kind: {kind}\nworkers: 2\nmemory_gib: 4\nwalltime: 1-02:30:00\npartition: long\naccount: us\n"
        "directives: ['--one-more']\nprologue: ['module load python']\n"
    )
    profile = load_cluster(str(path))
    with getattr(jobqueue, DIALECTS[kind].cluster)(**profile.options()) as cluster:
        script = cluster.job_script().splitlines()
    for line in (*lines, f"{lines[0].split()[0]} --one-more", "module load python"):
        assert line in script, "\n".join(script)
    assert any("--nthreads 1" in line for line in script)

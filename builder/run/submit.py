"""Start a build whose driver outlives this terminal: a Slurm job, a Kubernetes Job, or a process."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.errors import ResourceError, SpecError
from builder.run.clusters import Cluster, load_cluster
from builder.run.clusters.jobs import Jobs
from builder.run.clusters.kubernetes import Kubernetes, render_job
from builder.run.journal import last_run
from builder.run.places import check_places
from builder.run.requeue import lead, script, will_run_again
from builder.specfile import fill_parameters, load_spec
from builder.storage import private_store

FOLDER = "submissions"
DRIVER_MEMORY_MIB = 4096
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Submission:
    """A build that was submitted.

    Parameters
    ----------
    identity
        Our own name for it.
    handle
        The other side's name for it: the number of a Slurm job, the name of a Kubernetes Job, the number of a process.
    """

    identity: str
    kind: str
    handle: str
    host: str
    log: str
    after: int = 0
    """The last run that the dataset had before; the build's own gets a higher number."""

    def facts(self) -> dict[str, Any]:
        """Return the submission for machines."""
        return dict(self.__dict__)

    def text(self) -> str:
        """Return the submission for a person."""
        return f"submitted {self.identity}: {self.kind} {self.handle}; output in {self.log}; see builder status, watch"


def submit(spec: Path, *, to: str, cluster: str, parameters: Mapping[str, str]) -> Submission:
    """Start ``builder build`` where it outlives this process, and return at once.

    Raises
    ------
    SpecError
        When the profile, the spec or a place it names is not valid.
    ResourceError
        When the cluster's scheduler refuses the driver's job.
    """
    profile = load_cluster(cluster)
    filled = fill_parameters(load_spec(spec), parameters)
    check_places(filled.sources, to, sealed=filled.splits.sequester)
    identity = secrets.token_hex(4)
    where = str(Path(cluster).absolute()) if Path(cluster).is_file() else cluster
    command = ["build", str(spec.absolute()), "--to", to, "--cluster", where, "--json"]
    command += [part for name, value in sorted(parameters.items()) for part in ("--param", f"{name}={value}")]
    before = last_run(to)
    submission = replace(_start(profile, command, identity, _log(to, identity)), after=before)
    private = private_store(to)
    private.put(f"{FOLDER}/{identity}.json", json.dumps(submission.facts(), sort_keys=True).encode())
    return submission


def wait_for_start(dataset: str, *, say: Callable[[str], None]) -> None:
    """Wait while a submitted build of a dataset has no run yet, but may still begin one."""
    told = False
    while waiting := _not_begun(dataset):
        if not told:
            say(f"waiting for {waiting.kind} {waiting.handle} to start; its output will be in {waiting.log}")
            told = True
        time.sleep(POLL_SECONDS)


def _not_begun(dataset: str) -> Submission | None:
    store, last = private_store(dataset).join(FOLDER), last_run(dataset)
    for path in store.list():
        if path.endswith(".json"):
            submission = Submission(**json.loads(store.read(path)))
            if submission.after >= last and _may_begin(submission):
                return submission
    return None


def _may_begin(submission: Submission) -> bool:
    """Return whether a driver waits in the queue or is at work. One whose host cannot be asked counts as over."""
    if submission.kind == "slurm job":
        return will_run_again(submission.handle)
    if submission.kind == "process":
        return submission.host == socket.gethostname() and _is_running(int(submission.handle))
    return _has_job(submission)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def _has_job(submission: Submission) -> bool:
    command = ["kubectl", "get", "job", submission.handle, "--namespace", submission.host, "-o", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode:
        return False
    conditions = json.loads(done.stdout).get("status", {}).get("conditions") or []
    return not any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in conditions)


def _start(profile: Cluster, command: list[str], identity: str, log: str) -> Submission:
    if isinstance(profile, Jobs) and profile.kind == "slurm":
        return Submission(identity, "slurm job", _sbatch(profile, command, identity, log), socket.gethostname(), log)
    if isinstance(profile, Kubernetes):
        name = _apply(render_job(profile, ["builder", *command], identity=identity))
        return Submission(identity, "kubernetes job", name, profile.namespace, f"kubectl logs job/{name}")
    pid = _detach([sys.executable, "-m", "builder", *command], log)
    return Submission(identity, "process", str(pid), socket.gethostname(), log)


def _log(to: str, identity: str) -> str:
    """Return where the driver's output goes: beside the dataset if that is a folder, else a temporary file."""
    if "://" in to:
        return str(Path(tempfile.gettempdir()) / f"builder-{identity}.log")
    folder = Path(private_store(to).join(FOLDER).url)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder / f"{identity}.log")


def _detach(command: list[str], log: str) -> int:
    """Start a process in its own session and return its number."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=nothing, stdout=handle, stderr=handle, start_new_session=True)
    finally:
        os.close(handle)
    process.returncode = 0  # marks the process as ended, so that Python does not warn that nobody waited for it
    return process.pid


def _sbatch(profile: Jobs, command: list[str], identity: str, log: str) -> str:
    """Submit the driver as a job and return its number. Slurm passes the environment on; the script holds no values."""
    options = [f"--job-name=builder-{identity}", f"--output={log}", "--open-mode=append", f"--time={profile.walltime}"]
    options += [f"--mem={DRIVER_MEMORY_MIB}M", "--requeue", "--parsable"]
    options += [f"--signal=B:USR1@{lead(profile.walltime)}"]
    options += [f"--partition={profile.partition}"] if profile.partition else []
    options += [f"--account={profile.account}"] if profile.account else []
    options += list(profile.directives)
    text = script([profile.python or sys.executable, *command], prologue=profile.prologue)
    return _run(["sbatch", *options], text).partition(";")[0]


def _apply(document: Mapping[str, Any]) -> str:
    """Create the object by kubectl with the user's configuration and credentials; return its name."""
    return _run(["kubectl", "create", "-f", "-", "-o", "name"], json.dumps(document)).rpartition("/")[2]


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        name = command[0]
        raise SpecError(f"--cluster: found no {name} on this machine, expected it; submit from a login node") from None
    if done.returncode:
        raise ResourceError(f"{command[0]} refused the job: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()

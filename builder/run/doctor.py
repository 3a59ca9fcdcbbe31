"""Check this machine, and on request a key, a place and a cluster: what works, what is missing, what to do about it."""

import os
import platform
import shutil
import ssl
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final, Literal

from packaging.requirements import Requirement
from pydicom.uid import (
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from builder.deid import resolve_key
from builder.errors import BuilderError, CaseError
from builder.imaging.pixels.stored import check_syntax
from builder.run.clusters import load_cluster
from builder.storage import LocalStore, open_store

State = Literal["ok", "note", "fault"]

DISTRIBUTION: Final = "medical-dataset-builder"
NOT_FOR_USERS: Final = ("test", "peers")
LEAST_FREE_BYTES: Final = 10 << 30
"""Free space below which a place gets a note: some hundred CT series fill it."""

_SYNTAXES: Final = (
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. A ``note`` may be as it should be; a ``fault`` keeps builds from working."""

    what: str
    state: State
    detail: str


@dataclass(frozen=True)
class Examination:
    """Everything that was checked, in order."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is at fault."""
        return all(finding.state != "fault" for finding in self.findings)

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {"healthy": self.healthy, "findings": [asdict(finding) for finding in self.findings]}

    def text(self) -> str:
        """Return it as the lines that a terminal shows."""
        width = max(len(finding.what) for finding in self.findings)
        return "\n".join(f"{f.state:<6}{f.what:<{width}}  {f.detail}" for f in self.findings)


def examine(
    *, environment: Mapping[str, str], key: str | None = None, to: str | None = None, cluster: str | None = None
) -> Examination:
    """Check this machine, and what else is named.

    Parameters
    ----------
    key
        Reference to the key, as in ``deid.patient_key``: ``${env:NAME}`` or ``${file:/path}``.
    to
        Folder or URL of a dataset: a small object is written there, read and deleted.
    cluster
        As ``--cluster`` of a build.
    """
    findings = [*_machine(), *_extras(), _decoders(), _tls()]
    if key is not None:
        findings.append(_key(key, environment))
    if to is not None:
        findings.append(_place(to))
    if cluster is not None:
        findings.append(_cluster(cluster))
    return Examination(tuple(findings))


def _machine() -> Iterator[Finding]:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("version", "ok", f"builder {version(DISTRIBUTION)}, {python}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("machine", "ok", f"{os.cpu_count()} cores, {memory / 2**30:.0f} GiB of memory")
    home = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parents[1] / "kernels" / "__pycache__")
    writable = [path for path in (home, Path("~").expanduser()) if os.access(path, os.W_OK)]
    if writable:
        yield Finding("compiled kernels", "ok", f"kept in {writable[0]}")
    else:
        advice = "every process compiles them again; set NUMBA_CACHE_DIR to a folder that can be written"
        yield Finding("compiled kernels", "note", advice)


def _extras() -> Iterator[Finding]:
    wanted: dict[str, list[str]] = {}
    for text in requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        extra = str(requirement.marker or "").partition("extra == ")[2].strip("\"'")
        if extra and extra not in NOT_FOR_USERS:
            wanted.setdefault(extra, []).append(requirement.name)
    missing = sorted(extra for extra, names in wanted.items() if not all(map(_is_installed, names)))
    there = sorted(set(wanted) - set(missing))
    yield Finding("extras", "ok", f"installed: {', '.join(there) or 'none'}")
    if missing:
        how = f"pip install '{DISTRIBUTION}[{missing[0]}]'"
        yield Finding("extras", "note", f"not installed: {', '.join(missing)}; for those you need: {how}")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _decoders() -> Finding:
    lacking = [syntax.name for syntax in _SYNTAXES if not _is_decoded(syntax)]
    if lacking:
        advice = f"nothing reads {', '.join(lacking)}; install pylibjpeg-openjpeg, pyjpegls and python-gdcm"
        return Finding("decoders", "fault", advice)
    return Finding("decoders", "ok", "RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K can be read")


def _is_decoded(syntax: UID) -> bool:
    try:
        check_syntax(str(syntax))
    except CaseError:
        return False
    return True


def _tls() -> Finding:
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        return Finding("TLS", "note", "the system has no certificates of authorities; set SSL_CERT_FILE for servers")
    return Finding("TLS", "ok", f"{ssl.OPENSSL_VERSION}; authorities from {paths.cafile or paths.capath}")


def _key(reference: str, environment: Mapping[str, str]) -> Finding:
    try:
        resolve_key(reference, environment, read=lambda path: Path(path).read_bytes())
    except BuilderError as error:
        return Finding("key", "fault", str(error))
    return Finding("key", "ok", f"{reference} holds a key that is strong enough")


def _place(to: str) -> Finding:
    probe, content = f".doctor-{uuid.uuid4().hex}", b"written by builder doctor"
    store = open_store(to)
    try:
        existed = not isinstance(store, LocalStore) or store.root.exists()
        store.put(probe, content)
        same = store.read(probe) == content
        store.delete(probe)
        if isinstance(store, LocalStore) and not existed:
            store.root.rmdir()
    except (OSError, BuilderError) as error:
        return Finding("place", "fault", f"{to}: {error}")
    if not same:
        return Finding("place", "fault", f"{to} gave back other bytes than were written")
    if not isinstance(store, LocalStore):
        return Finding("place", "ok", f"{to} can be written, read and deleted from")
    there = next(path for path in (store.root, *store.root.parents) if path.exists())
    free = shutil.disk_usage(there).free
    state: State = "ok" if free >= LEAST_FREE_BYTES else "note"
    return Finding("place", state, f"{to} can be written, read and deleted from; {free / 2**30:.0f} GiB are free")


def _cluster(text: str) -> Finding:
    try:
        with load_cluster(text).open(None) as runner:
            return Finding("cluster", "ok", f"{text} has {runner.width} worker threads, alike in their packages")
    except (OSError, BuilderError) as error:
        return Finding("cluster", "fault", f"{text}: {error}")

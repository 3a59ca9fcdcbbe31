"""Check that workers match the driver, because other code or libraries would write other bytes under the same names."""

import platform
from hashlib import sha256
from pathlib import Path
from typing import Any

import builder
from builder.errors import SourceError
from builder.model.canonical import fingerprint
from builder.planning.lock import PACKAGES, package_version


def environment_here() -> str:
    """Fingerprint this process's Python, libraries and our own code."""
    root = Path(builder.__file__).parent
    code = sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    versions = {name: package_version(name) for name in PACKAGES}
    return fingerprint(platform.python_version(), platform.machine(), versions, code.hexdigest())


def check_likeness(client: Any) -> None:
    """Compare every worker with this process.

    Raises
    ------
    SourceError
        When a worker has another Python, library, machine architecture or version of this package.
    """
    here = environment_here()
    found = client.run(environment_here, on_error="return")
    # a worker that has died since does not count, because it will be replaced
    unlike = sum(answer != here for answer in found.values() if not isinstance(answer, OSError))
    if unlike:
        raise SourceError(
            f"cluster: found {unlike} of {len(found)} workers with another Python, library or version of this package, "
            "expected the driver's: other versions write other bytes; install one environment on all machines",
            host="worker",
        )

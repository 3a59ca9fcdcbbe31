"""Make the lock: the versions of everything that a dataset's bytes depend on."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = (
    "medical-dataset-builder",
    "numpy",
    "numba",
    "scipy",
    "pyarrow",
    "duckdb",
    "numcodecs",
    "pydicom",
    "python-gdcm",
    "pylibjpeg-openjpeg",
    "pyjpegls",
    "highdicom",
    "nibabel",
    "pillow",
    "jinja2",
)


def environment_lock(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return Python, architecture, packages, plug-in versions and a check value of the key; no host, user or time.

    Parameters
    ----------
    document
        What shards are named by, from ``builder.plan.recipe``.
    """
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "format": document["format"],
        "engine": document["engine"],
        "plugins": document["versions"],
        "key_check": document["key"],
    }


def package_version(name: str) -> str:
    """Return the version of an installed package, or ``absent`` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"

"""Storage of datasets: one small interface to a local folder or an object store, with atomic and durable writes.

A write either succeeds as a whole or leaves nothing. A local object is written to a temporary file next to its target,
flushed and renamed; an object store receives it in one request. Readers never list. No other package touches files,
obstore or fsspec for datasets.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.errors import LayoutError, SpecError
from builder.storage.contract import ObjectReader, Store
from builder.storage.crash import CRASH_VARIABLE, STOP_VARIABLE, checkpoint
from builder.storage.local import SCRATCH_PREFIX, LocalStore
from builder.storage.objects import ObjectStore
from builder.storage.temporary import temporary_folder

__all__ = [
    "CRASH_VARIABLE",
    "PRIVATE_SUFFIX",
    "SCRATCH_PREFIX",
    "STOP_VARIABLE",
    "LocalStore",
    "ObjectReader",
    "ObjectStore",
    "Store",
    "checkpoint",
    "open_beside",
    "open_store",
    "private_store",
    "read_at",
    "temporary_folder",
]

PRIVATE_SUFFIX = ".private"
"""What the name of a dataset's private workspace has beyond that of the dataset."""

_OBJECT_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "memory", "http", "https")


def open_store(url: str | Path, *, directory_mode: int = 0o777) -> Store:
    """Return the store at a folder or URL (``s3://``, ``gs://``, ``az://``, ``memory://``).

    Nothing is created or contacted yet.

    Parameters
    ----------
    directory_mode
        Permissions of new folders on a local disk (before the umask): 0o700 for a private workspace.

    Raises
    ------
    SpecError
        If the scheme of the URL is not one of those above, the URL names no bucket, or the path cannot be one.
    """
    text = str(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("", "file"):
        return LocalStore(_local_path(unquote(urlsplit(text).path) if scheme else text), directory_mode)
    if scheme not in _OBJECT_SCHEMES:
        expected = ", ".join(f"{s}://" for s in ("file", *_OBJECT_SCHEMES))
        raise SpecError(f"found the URL scheme {scheme!r} in {text!r}, expected a folder or one of {expected}")
    if scheme != "memory" and not urlsplit(text).netloc:
        raise SpecError(f"found {text!r}, which names no bucket or host, expected such as {scheme}://NAME/FOLDER")
    return ObjectStore(text.rstrip("/"))


def private_store(dataset: str) -> Store:
    """Return the private workspace of a dataset."""
    return open_store(open_store(dataset).url + PRIVATE_SUFFIX, directory_mode=0o700)


def _local_path(text: str) -> Path:
    """Return an absolute path that ends in a name, because a workspace called after it lies beside it."""
    if not text:
        raise SpecError("found an empty path, expected a folder or URL; write . for the folder you are in")
    if "\0" in text:
        raise SpecError(f"found a NUL character in {text!r}, expected a path")
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        raise SpecError(
            f"found {text!r}, but nobody of that name has a home folder on this machine; write the path in full"
        ) from None
    return path.resolve() if path.name == ".." else path


def read_at(url: str) -> bytes:
    """Read the object at a path or URL. Raises FileNotFoundError or IsADirectoryError."""
    folder, mark, name = url.rpartition("/")
    return open_store(folder + mark or ".").read(name)


def open_beside(store: Store, suffix: str) -> Store:
    """Return the store next to a dataset whose name is that of the dataset plus a suffix, such as its log of use.

    Raises
    ------
    LayoutError
        If a link is found there. The author of the dataset may have put it there to lead anywhere.
    """
    place = store.url + suffix
    if isinstance(store, LocalStore) and Path(place).is_symlink():
        raise LayoutError(f"{Path(place).name}: found a link beside the dataset, expected a folder; remove the link")
    return open_store(place)

"""Look at the samples of a published dataset in a browser, and mark those to leave out."""

from pathlib import Path

from builder.library.view.marks import Marks
from builder.library.view.samples import Samples
from builder.library.view.server import Server
from builder.reader.opening import open_dataset
from builder.storage import LocalStore

SUFFIX = ".leave-out.txt"
"""Of the file of marks, after the name of the dataset."""


def open_view(dataset: str, *, leave_out: Path | None = None, port: int = 0) -> Server:
    """Return a server for the published version of a dataset, which listens and does not answer yet.

    Parameters
    ----------
    leave_out
        File of the marks; beside a dataset in a folder without it, and in the working folder for one elsewhere.

    Raises
    ------
    LayoutError
        As ``open_dataset``.
    SpecError
        If the file of the marks holds anything else.
    OSError
        If the port is taken.
    """
    opened = open_dataset(dataset, uses="off")
    store = opened.store
    beside = Path(store.url + SUFFIX) if isinstance(store, LocalStore) else Path.cwd() / (opened.manifest.name + SUFFIX)
    return Server(Samples(opened), Marks(leave_out.absolute() if leave_out is not None else beside), port=port)

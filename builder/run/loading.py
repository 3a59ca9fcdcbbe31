"""What the libraries of a build load besides, and builds never use: left out, for every process pays for it anew.

For processes that are ours alone, the command line's and the workers': in a caller's own process the libraries stay
as they find them.
"""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType, SimpleNamespace
from typing import Any

WITHOUT = {
    "pydicom": ("requests", "tqdm"),  # for downloads of its test files
    "pyarrow.parquet": ("pyarrow._azurefs", "pyarrow._gcsfs", "pyarrow._hdfs", "pyarrow._s3fs"),  # fsspec opens files
    "numba.core.typing.cffi_utils": ("cffi",),  # for calls of C functions from compiled code
    "numba.np.arraymath": ("scipy.linalg",),  # for products of matrices in compiled code
}
"""A module, and what it looks for when it is loaded and does without where that is not installed."""

YOUNG_OBJECTS = 20_000
"""New objects before Python looks for cycles among them: loading the libraries makes many and no cycles."""


def mind_garbage() -> None:
    """Look for cycles less often than Python does by default."""
    gc.set_threshold(YOUNG_OBJECTS)


def load_libraries() -> None:
    """Load pydicom, pyarrow and numba without what they do not need here.

    GDCM is loaded when the first frame is decoded by it; pandas, which pyarrow looks for with the first array made
    from a list, only for what cannot do without.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own keeps 8 MB that nothing else can use
    gdcm = _defer_gdcm()
    for module, others in WITHOUT.items():
        with _withheld(others):
            import_module(module)
    if gdcm is not None:
        gdcm.open()
    with _withheld(["pandas"]):
        import_module("pyarrow").array([None])


@contextmanager
def _withheld(names: Sequence[str]) -> Iterator[None]:
    """As if the modules ``names`` were not installed."""
    finder = _Withholding(frozenset(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Withholding(MetaPathFinder):
    """Finds nothing, and lets nobody else find what is withheld."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self._names:
            raise ModuleNotFoundError(f"{fullname} is not loaded in processes of builder", name=fullname)
        return None


def _defer_gdcm() -> "_Gdcm | None":
    """Put a stand-in where GDCM would be; None where it is loaded already or not installed."""
    if "gdcm" in sys.modules:
        return None
    try:
        module = _Gdcm(version("python-gdcm"))
    except PackageNotFoundError:
        return None
    sys.modules["gdcm"] = module
    return module


class _Gdcm(ModuleType):
    """GDCM until it is used: pydicom asks for its version to tell whether it could decode."""

    def __init__(self, stated: str) -> None:
        super().__init__("gdcm")
        self.Version = SimpleNamespace(GetVersion=lambda: stated)
        self._is_open = False

    def open(self) -> None:
        """From now on whatever is asked for beside the version loads it."""
        self._is_open = True

    def __getattr__(self, name: str) -> Any:
        if not self._is_open or not name[:1].isupper():  # pickle asks every module for the names of functions
            raise AttributeError(name)
        if sys.modules["gdcm"] is self:
            del sys.modules["gdcm"]
        return getattr(import_module("gdcm"), name)

"""Reads a dataset in a Python that can import the reader's five packages and nothing else: ``alone.py DATASET``.

Prints how many samples there are and a digest of their images, for comparison with a full install.
"""

import hashlib
import sys
from importlib.machinery import ModuleSpec

READER = {"numpy", "pyarrow", "numcodecs", "google_crc32c", "obstore"}
THEIRS = {"typing_extensions"}
"""What the five packages need themselves."""
ALLOWED = {"builder", *READER, *THEIRS, *sys.stdlib_module_names}


class NothingElse:
    """Finds no module of any other package."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] in ALLOWED or name.startswith("_sysconfigdata"):
            return None
        raise ModuleNotFoundError(f"{name} is not among the packages of a reader's install", name=name)


def main(root: str) -> None:
    sys.meta_path.insert(0, NothingElse)
    import builder
    import builder.reader
    from builder.errors import MissingExtra

    dataset = builder.open_dataset(root)
    digest = hashlib.sha256()
    for batch in dataset.batches(3, threads=2):
        digest.update(batch["image"].tobytes())
    found = len(dataset.where("age_years > 10"))
    try:
        dataset.sql("select position from samples")
    except MissingExtra as error:
        print(len(dataset), found, digest.hexdigest(), error)


if __name__ == "__main__":
    main(sys.argv[1])

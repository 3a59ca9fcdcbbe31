"""Base of the readers of label tables: selects the table, asks which images it covers and cuts out their rows."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyarrow as pa

from builder.labels.label import Label
from builder.labels.rows import Table
from builder.model.linking import ImageRow, Mentions, Selection


class TableLabel(Label):
    """A reader of a table with labels for many images.

    Parameters
    ----------
    table
        Where the table lies and which rows are the image's.
    """

    SHARED_FILES: ClassVar[bool] = True

    kind: str  # declared before the table: the order of options is part of a recipe's fingerprint
    table: Table

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """The columns that ``read`` needs."""

    @property
    def reader_column(self) -> str | None:
        """The column that names the reader of a row, if any. Names are replaced by keyed ones."""
        return None

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the tables whose path matches the pattern."""
        return self.table.select(image, candidates)

    def mentions(self, content: bytes) -> Mentions:
        """Return a test of whether the table has a row for an image."""
        return self.table.mentions(content)

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """Cut the image's rows out of a fetched table, for ``read``."""
        return self.table.cut(content, image, columns=self.columns, map_uid=map_uid, reader=self.reader_column)

"""What all readers of label tables share: the table, and how it is selected, asked and cut for one image."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyarrow as pa

from builder.labels.label import Label
from builder.labels.rows import Table
from builder.protocols import ImageRow, Mentions, Selection


class TableLabel(Label):
    """A reader of a table that holds labels of many images.

    Parameters
    ----------
    table
        Where the table lies and which rows are the image's.
    """

    SHARED_FILES: ClassVar[bool] = True

    kind: str  # before the table, as readers state it: the order of options is part of a recipe's fingerprint
    table: Table

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """The columns that ``read`` needs."""

    @property
    def reader_column(self) -> str | None:
        """The column of who made a row; readers get keyed names."""
        return None

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Tables whose path fits the pattern."""
        return self.table.select(image, candidates)

    def mentions(self, content: bytes) -> Mentions:
        """Which images the table has a row of."""
        return self.table.mentions(content)

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """The image's rows of a fetched table, for ``read``."""
        return self.table.cut(content, image, columns=self.columns, map_uid=map_uid, reader=self.reader_column)

"""Access to optional attributes of label objects. An attribute that cannot be read counts as absent."""

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing


def value_of(item: Dataset, keyword: str) -> Any:
    """Return the value of an attribute, or None if it is absent or cannot be read."""
    try:
        with parsing(Reason.LABEL_UNREADABLE, f"found a value of {keyword} that cannot be read"):
            return item.get(keyword)
    except CaseError:
        return None


def items_of(item: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence, or none if it is absent or not a sequence."""
    value = value_of(item, keyword)
    return [i for i in value if isinstance(i, Dataset)] if isinstance(value, Sequence) else []

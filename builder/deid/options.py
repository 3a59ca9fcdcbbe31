"""What a spec says about the text of single columns."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, field_validator

from builder.model.patterns import check_pattern


class ColumnText(BaseModel):
    """What may leave of one column of text, in addition to its closed vocabulary.

    Parameters
    ----------
    values
        Values that leave as they are.
    map
        Maps a value of the archive to the value that leaves in its place.
    pattern
        A regular expression (RE2) of whole values that leave, unless they say who a person is or look like a date, a
        long number or an address.
    drop
        Whether nothing of the column leaves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: tuple[str, ...] = ()
    map: Mapping[str, str] = {}
    pattern: str | None = None
    drop: bool = False

    @field_validator("pattern")
    @classmethod
    def _is_re2(cls, pattern: str | None) -> str | None:
        return None if pattern is None else check_pattern(pattern)

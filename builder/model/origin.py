"""Where data came from and under which terms: what a catalog cites."""

from pydantic import BaseModel, ConfigDict, Field


class Origin(BaseModel):
    """What is stated about the data of a source, of one of its series, or of a table.

    Parameters
    ----------
    title
        Name of the collection or study.
    license
        SPDX identifier, name or address of its licence.
    citation
        The reference its authors ask for.
    doi
        Digital Object Identifier, without ``https://doi.org/``.
    page
        Address of its public page.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str | None = Field(default=None, min_length=1)
    license: str | None = Field(default=None, min_length=1, max_length=200)
    citation: str | None = Field(default=None, min_length=1)
    doi: str | None = Field(default=None, pattern=r"^10\.\d{4,9}/\S+$")
    page: str | None = Field(default=None, pattern=r"^https?://\S+$")

    def completed(self, other: "Origin") -> "Origin":
        """Return this origin, completed by ``other``."""
        stated = {name: value for name, value in self.model_dump().items() if value is not None}
        return Origin(**{**other.model_dump(), **stated})

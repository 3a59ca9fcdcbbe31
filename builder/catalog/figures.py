"""Figures of the quality of a dataset, and how independent its splits are of each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FigureFacts:
    """A figure of the quality of data: ``count`` of ``of`` things (None: masked), under one dimension of quality.

    Without ``of`` it is a plain number in ``unit`` (UCUM).
    """

    dimension: str
    about: str
    count: int | None
    of: int | None = None
    unit: str | None = None

    def __str__(self) -> str:
        if self.count is None:
            return f"{self.about}: masked"
        if self.of is None:
            return f"{self.about}: {self.count} {self.unit or ''}".rstrip()
        share = f" ({100 * self.count / self.of:.1f} %)" if self.of else ""
        return f"{self.about}: {self.count} of {self.of}{share}"


@dataclass(frozen=True)
class OverlapFacts:
    """How far one split shares values with another: its cases, and those whose value the other split has, too.

    Parameters
    ----------
    level
        What is compared: person, site, device, protocol or period.
    shared
        Values that both splits have.
    cases, known, alike
        Cases of ``test``; those whose value is known; and of these those whose value ``train`` has, too. None: masked.
    """

    level: str
    train: str
    test: str
    shared: int | None
    cases: int
    known: int | None
    alike: int | None

    def __str__(self) -> str:
        if self.alike is None or self.known is None:
            return f"{self.level}: masked"
        return f"{self.level}: {self.alike} of {self.known} cases of {self.test} have one that {self.train} has"

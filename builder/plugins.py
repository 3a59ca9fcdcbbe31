"""Plug-ins that other packages install, found by their entry points."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from typing import Annotated, Any, Union

from pydantic import Field

from builder.errors import SpecError

FAMILIES = ("sources", "labels", "transforms", "registrars", "defacers", "extracts", "clusters")
"""A package adds a plug-in under the entry point group ``builder.<family>``; the entry's name is the ``kind``."""


def with_installed(family: str, built_in: Mapping[str, type[Any]]) -> dict[str, type[Any]]:
    """Return the built-in plug-ins of a family, then those of installed packages in the order of their kinds.

    Raises
    ------
    SpecError
        When a package cannot be loaded, or adds a kind that is there already: which of two would run must not depend
        on what happens to be installed first.
    """
    table = dict(built_in)
    for point in sorted(_installed()[family], key=lambda p: (p.name, p.value)):
        if point.name in table:
            raise SpecError(
                f"plug-in {point.name!r} ({point.value}): the {family} already have this kind; uninstall the package "
                "or give its plug-in another kind"
            )
        try:
            table[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise SpecError(
                f"plug-in {point.name!r} ({point.value}): cannot be loaded ({error}); reinstall or remove its package"
            ) from error
    return table


@cache
def _installed() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the plug-ins of installed packages by family; all at once, for it takes 8 ms to look."""
    found = entry_points()
    return {family: tuple(found.select(group=f"builder.{family}")) for family in FAMILIES}


def block_of(table: Mapping[str, type[Any]]) -> Any:
    """Return the type of a spec's block that decodes to one plug-in of the table, by its ``kind``."""
    return Annotated[Union[tuple(table.values())], Field(discriminator="kind")]  # noqa: UP007 (made at run time)


def distribution_of(plugin: object) -> tuple[str, ...]:
    """Name and version of the distribution a plug-in comes from, for fingerprints; nothing for built-in ones."""
    package = type(plugin).__module__.partition(".")[0]
    if package == "builder":
        return ()
    return tuple(f"{name}=={version(name)}" for name in sorted(set(packages_distributions().get(package, ()))))

"""Defacers: plug-ins that choose what of a head is taken out so that nobody recognises the face."""

from typing import TYPE_CHECKING, TypeAlias

from builder.defacers.defacer import DefacerBlock
from builder.defacers.surface import Surface
from builder.plugins import block_of, with_installed

BUILT_IN: dict[str, type[DefacerBlock]] = {"surface": Surface}
"""The defacers of this package."""

DEFACERS: dict[str, type[DefacerBlock]] = with_installed("defacers", BUILT_IN)
"""Every defacer by the ``kind`` that selects it."""

if TYPE_CHECKING:
    AnyDefacer: TypeAlias = DefacerBlock
    """The block ``faces`` of ``deid`` in a spec, its ``method``. Its ``kind`` selects the defacer."""
else:
    AnyDefacer = block_of(DEFACERS)

__all__ = ["BUILT_IN", "DEFACERS", "AnyDefacer", "DefacerBlock", "Surface"]

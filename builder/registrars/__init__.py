"""Registrars: plug-ins that find how one image of a case must be moved to lie on another."""

from typing import TYPE_CHECKING, TypeAlias

from builder.plugins import block_of, with_installed
from builder.registrars.registrar import RegistrarBlock
from builder.registrars.rigid import Rigid

BUILT_IN: dict[str, type[RegistrarBlock]] = {"rigid": Rigid}
"""The registrars of this package."""

REGISTRARS: dict[str, type[RegistrarBlock]] = with_installed("registrars", BUILT_IN)
"""Every registrar by the ``kind`` that selects it in a spec."""

if TYPE_CHECKING:
    AnyRegistrar: TypeAlias = RegistrarBlock
    """The block ``registrar`` of an image in a spec. Its ``kind`` selects the registrar."""
else:
    AnyRegistrar = block_of(REGISTRARS)

__all__ = ["BUILT_IN", "REGISTRARS", "AnyRegistrar", "Rigid"]

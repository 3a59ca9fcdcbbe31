"""Extracts: clinical tables that are no single file, taken out of databases and exports. One file each."""

from typing import TYPE_CHECKING, TypeAlias

from builder.extracts.extract import ExtractBlock
from builder.extracts.fhir import Fhir
from builder.extracts.gdc import Gdc
from builder.extracts.omop import Omop
from builder.extracts.pdc import Pdc
from builder.extracts.sql import Sql
from builder.plugins import block_of, with_installed

BUILT_IN: dict[str, type[ExtractBlock]] = {"sql": Sql, "fhir": Fhir, "omop": Omop, "gdc": Gdc, "pdc": Pdc}
"""The extracts of this package."""

EXTRACTS: dict[str, type[ExtractBlock]] = with_installed("extracts", BUILT_IN)
"""Every extract by the ``kind`` that selects it in a spec."""

if TYPE_CHECKING:
    AnyExtract: TypeAlias = ExtractBlock
    """The block ``extract`` of a clinical table. Its ``kind`` selects the extract."""
else:
    AnyExtract = block_of(EXTRACTS)

__all__ = ["BUILT_IN", "EXTRACTS", "AnyExtract", "ExtractBlock", "Fhir", "Gdc", "Omop", "Pdc", "Sql"]

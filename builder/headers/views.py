"""The view of a radiograph or mammogram, where View Position (0018,5101) is left out and only its code is stated."""

from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

VIEW_CODE_SEQUENCE: Final = 0x00540220

CODED_CLASSES: Final = r"^1\.2\.840\.10008\.5\.1\.4\.1\.1\.(1\.1|1\.2|13\.1\.3)(\.1)?$"
"""SOP classes of radiographs, mammograms and breast tomosynthesis, whose View Code Sequence has to be there."""

_VIEWS: Final = {
    "ML": ("399260004", "R-10224"),
    "MLO": ("399368009", "R-10226"),
    "LM": ("399352003", "R-10228"),
    "LMO": ("399099002", "R-10230"),
    "CC": ("399162004", "R-10242"),
    "FB": ("399196006", "R-10244"),
    "SIO": ("399188001", "R-102D0"),
    "ISO": ("441555000", "R-40AAA"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "AP": ("399348003", "R-10206"),
    "PA": ("272479007", "R-10214"),
    "LL": ("399173006", "R-10236"),
    "RL": ("399198007", "R-10232"),
    "LLO": ("399184004", "R-10238"),
    "RLO": ("399236003", "R-10234"),
}
"""View Position to the codes of the same view in SNOMED CT and in its older form (PS3.16, CID 4010 and 4014)."""

_BY_CODE: Final = {code: view for view, codes in _VIEWS.items() for code in codes}


def coded_view(dataset: Dataset) -> str | None:
    """Return the view that View Code Sequence (0054,0220) states, as View Position writes it; None for others."""
    if VIEW_CODE_SEQUENCE not in dataset:
        return None
    items = dataset[VIEW_CODE_SEQUENCE].value
    if not isinstance(items, Sequence) or len(items) != 1:
        return None
    return _BY_CODE.get(str(items[0].get("CodeValue", "")).strip())

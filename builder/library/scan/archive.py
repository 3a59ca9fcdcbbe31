"""Scan an archive: groups of like series, and everything that lies beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from builder.deid import Deid
from builder.imaging.stacks.options import VolumeOptions
from builder.library.scan.beside import Objects, Table, formats, label_objects, tables
from builder.library.scan.groups import Group, Names, group_series
from builder.library.scan.images import ImageFiles, image_files
from builder.library.scan.layouts import tabled
from builder.library.scan.masks import Masks, masks_of
from builder.planning.forecast import switch_of
from builder.planning.inventory import Inventory, take_inventory
from builder.planning.layouts import published_values, unread_object_lines
from builder.planning.risks import risks_of_chunk
from builder.planning.surveying import take_survey
from builder.protocols import Progress
from builder.sources import AnySource
from builder.stages.boundary import Faults
from builder.stages.graph import Runner
from builder.stages.prepare import KIND_COLUMNS
from builder.storage import Store

PRIVATE: Final = (
    "Private: this quotes descriptions, structures and paths of the archive. Keep it where the archive may be."
)
"""Stands at the head of every form of a scan."""


@dataclass(frozen=True, eq=False)
class Scan:
    """What an archive holds. It quotes descriptions, structures and paths, so it stays where the archive may be.

    Parameters
    ----------
    excluded
        What a spec without ``volumes`` leaves out: verdict, reason, stacks, and the option that lets them in.
    text_risks
        Why a build would refuse series whose pixels may show text, to the number of series.
    image_files, layout
        Image files that are not DICOM, by format and shape, and a layout to start from that would read them.
    layout_roots
        Folders of the datasets that the layout is of (BIDS, nnU-Net, MSD), below the source's folder.
    label_values
        Names of the values of masks, where a dataset.json of the layout states them.
    masks
        Where files lie that are masks of the images by their paths.
    """

    inventory: Inventory
    groups: tuple[Group, ...]
    persons: int
    studies: int
    series: int
    excluded: tuple[dict[str, Any], ...]
    text_risks: dict[str, int]
    objects: tuple[Objects, ...]
    tables: tuple[Table, ...]
    formats: dict[str, int]
    damaged: tuple[dict[str, Any], ...]
    duplicates: tuple[dict[str, Any], ...]
    unread: tuple[str, ...]
    image_files: tuple[ImageFiles, ...]
    layout: str
    layout_roots: tuple[str, ...]
    label_values: dict[int, str]
    masks: Masks | None

    @property
    def files(self) -> int:
        """Number of files, members of archives, and links that lead nowhere."""
        return sum(self.formats.values())

    @property
    def named_only(self) -> int:
        """Number of files that a DICOMDIR or a layout names and that are not there; a plan counts them too."""
        return self.inventory.files - self.files

    def facts(self) -> dict[str, Any]:
        """Return the scan as JSON-able data."""
        return {
            "private": PRIVATE,
            "files": self.files,
            "named_only": self.named_only,
            "persons": self.persons,
            "studies": self.studies,
            "series": self.series,
            "groups": [group.facts() for group in self.groups],
            "excluded_by_default": list(self.excluded),
            "pixels_that_may_show_text": self.text_risks,
            "label_objects": [objects.facts() for objects in self.objects],
            "tables": [table.facts() for table in self.tables],
            "formats": self.formats,
            "damaged": list(self.damaged),
            "duplicates": list(self.duplicates),
            "unread": list(self.unread),
            "image_files": [group.facts() for group in self.image_files],
            "layout_suggested": self.layout,
            "masks_suggested": self.masks.facts() if self.masks else None,
        }


def scan_archive(
    sources: Sequence[AnySource], private: Store, *, runner: Runner, progress: Progress, faults: Faults
) -> Scan:
    """Index and survey the sources, and sum up what is there. No pixels are read.

    Raises
    ------
    SourceError
        When a source lists nothing or does not answer.
    """
    inventory = take_inventory(sources, private, runner=runner, progress=progress, faults=faults)
    survey = take_survey(inventory, sources, VolumeOptions(), runner=runner, progress=progress, faults=faults)
    names = Names()
    groups, excluded = group_series(inventory, survey, names)
    risks: dict[str, int] = {}
    for number in range(len(inventory.chunks)):
        instances = inventory.chunk(number, columns=["series_uid", *KIND_COLUMNS])
        for why, count in risks_of_chunk(instances, survey.stacks_of(number), deid=_PLAIN).items():
            risks[why] = risks.get(why, 0) + count
    by_format, damaged, duplicates, unread = formats(inventory)
    beside, layout, roots = image_files(inventory, sources)
    listed = tuple(tables(inventory, sources, names))
    ordered = sorted(excluded.items(), key=lambda item: (-item[1], item[0]))
    return Scan(
        inventory=inventory,
        groups=tuple(groups),
        persons=len(names.persons),
        studies=len(names.studies),
        series=len(names.series),
        excluded=tuple(
            {"verdict": verdict, "reason": reason, "stacks": count, "switch": switch_of(verdict)}
            for (verdict, reason), count in ordered
        ),
        text_risks=dict(sorted(risks.items())),
        objects=tuple(label_objects(inventory, names)),
        tables=listed,
        formats=by_format,
        damaged=tuple(damaged),
        duplicates=tuple(duplicates),
        unread=(*unread, *unread_object_lines((g.kind.get("modality"), g.instances) for g in groups)),
        image_files=tuple(beside),
        layout=_tabled(listed, beside) or layout if layout.startswith("{") else layout,
        layout_roots=roots,
        label_values=published_values(sources, inventory.annotations()),
        masks=masks_of(inventory),
    )


def _tabled(listed: Sequence[Table], beside: Sequence[ImageFiles]) -> str:
    """Return the layout of the first table that lists most of the images; "" if none does."""
    images = sum(group.images for group in beside)
    found = (
        tabled(one.path, one.headings, {heading: here for heading, (here, _, _) in one.paths.items()}, images=images)
        for one in listed
    )
    return next(filter(None, found), "")


_PLAIN: Final = Deid(patient_key="${env:BUILDER_KEY}")
"""The rules for pixels that may show text, as a spec without any options has them."""

"""The layouts of nnU-Net's raw data and of the Medical Segmentation Decathlon, with their dataset.json."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from builder.errors import SpecError
from builder.model.places import stem_of
from builder.planning.layouts.names import Documents, Named
from builder.planning.layouts.sidecars import header_columns

FOLDERS = {"imagesTr": ("train", "labelsTr"), "imagesTs": ("test", "labelsTs")}
MODALITIES = {"ct": "CT", "mri": "MR", "mr": "MR", "pet": "PT", "us": "US"}


class OfDataset:
    """Common to both layouts: one folder with dataset.json, imagesTr and imagesTs."""

    def __init__(self, documents: Documents) -> None:
        roots = sorted({posixpath.dirname(p) for p in documents.places if posixpath.basename(p) == "dataset.json"})
        if len(roots) != 1:
            raise SpecError(
                f"layout: found {len(roots)} files dataset.json below the source's folder, expected one: give each "
                "dataset a source of its own, with a collection, because cases of two datasets may share a name"
            )
        self.documents = documents
        self.root = roots[0]
        self.facts = documents.mapping(posixpath.join(self.root, "dataset.json"))

    def folder_of(self, place: str) -> tuple[str, str] | None:
        """Return the folder below the root that an image lies in, and its name there; None for other files."""
        inside = posixpath.relpath(place, self.root or ".")
        folder, _, name = inside.partition("/")
        return (folder, name) if folder in FOLDERS and name and "/" not in name else None

    def sidecar(self, place: str) -> dict[str, Any]:
        """Return the columns of the JSON file beside an image."""
        beside = posixpath.join(posixpath.dirname(place), f"{stem_of(place)}.json")
        return header_columns(self.documents.mapping(beside)) if beside in self.documents.places else {}

    def names(self, key: str) -> dict[str, str]:
        """Return a mapping of numbers to names out of dataset.json."""
        found = self.facts.get(key)
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


class NnUnet(OfDataset):
    """``imagesTr/CASE_0000.nii.gz``: a case and the number of a channel; ``labelsTr/CASE.nii.gz``."""

    def name(self, place: str) -> Named | str | None:
        """See ``names.Reading``."""
        found = self.folder_of(place)
        parts = re.fullmatch(r"(.+)_(\d{4})", stem_of(place))
        if found is None:
            return None
        if parts is None:
            return "the name does not end with an underscore and the four digits of a channel, as nnU-Net writes it"
        channels = self.names("channel_names") or self.names("modality")
        channel = channels.get(str(int(parts[2])))
        if channel is None:
            return f"channel {int(parts[2])} is not among the {len(channels)} of dataset.json"
        split, labels = FOLDERS[found[0]]
        ending = str(self.facts.get("file_ending") or found[1].removeprefix(stem_of(place)))
        modality = MODALITIES.get(channel.lower(), "")
        return Named(
            patient=parts[1], image=channel if len(channels) > 1 else "image", case=parts[1], split=split,
            columns={**({"modality": modality} if modality else {}), **self.sidecar(place)},
            fields={"channel": parts[2], "label": posixpath.join(self.root, labels, f"{parts[1]}{ending}")},
        )  # fmt: skip

    def promised(self) -> Iterator[str]:
        """Yield nothing: dataset.json lists no files."""
        return iter(())


class Decathlon(OfDataset):
    """``dataset.json`` lists images with their labels, and images without."""

    def __init__(self, documents: Documents) -> None:
        super().__init__(documents)
        self.listed: dict[str, tuple[str, str]] = {}
        for split, key in (("train", "training"), ("test", "test")):
            entries = self.facts.get(key)
            for entry in entries if isinstance(entries, list) else []:
                image = entry.get("image") if isinstance(entry, Mapping) else entry
                label = entry.get("label", "") if isinstance(entry, Mapping) else ""
                if isinstance(image, str) and isinstance(label, str):
                    self.listed[self._place(image)] = (split, self._place(label) if label else "")

    def name(self, place: str) -> Named | str | None:
        """See ``names.Reading``."""
        found = self.listed.get(place)
        if found is None:
            return "dataset.json does not list the image" if self.folder_of(place) else None
        split, label = found
        names = self.names("modality")
        channels = tuple(names[k] for k in sorted(names, key=lambda k: (len(k), k)))
        modality = MODALITIES.get(channels[0].lower(), "") if len(channels) == 1 else ""
        columns = {"modality": modality} if modality else {}
        fields = {"label": label} if label else {}
        return Named(
            patient=stem_of(place), case=stem_of(place), split=split, channels=channels if len(channels) > 1 else (),
            columns={**columns, **self.sidecar(place)}, fields=fields,
        )  # fmt: skip

    def promised(self) -> Iterator[str]:
        """Yield the images that dataset.json lists."""
        yield from self.listed

    def _place(self, stated: str) -> str:
        return posixpath.normpath(posixpath.join(self.root, stated))

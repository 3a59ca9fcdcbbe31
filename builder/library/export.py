"""Export a published dataset, or a part of it, to the files of other tools (``builder export``)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from builder.errors import SpecError, counted
from builder.reader.dataset import Dataset
from builder.reader.export import (
    export_bids,
    export_datalist,
    export_huggingface,
    export_nifti,
    export_nnunet,
    export_omezarr,
    export_webdataset,
)
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present
from builder.reader.opening import open_dataset

Write = Callable[..., Any]


@dataclass(frozen=True)
class Form:
    """One form of files.

    Parameters
    ----------
    write
        Function that takes a dataset, a folder and ``track``.
    about
        What somebody gets, for the help and the last line.
    label
        Whether the form has one label, which must be named where the dataset has several.
    number
        Whether nnU-Net's number of the dataset is part of it.
    volumes
        Whether only whole volumes make sense.
    """

    write: Write
    about: str
    label: bool = False
    number: bool = False
    volumes: bool = False


FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "nifti": Form(export_nifti, "a NIfTI file a field and sample; the rows are in samples.json"),
        "monai": Form(export_datalist, "NIfTI files and MONAI's datalist.json", label=True),
        "nnunet": Form(
            export_nnunet,
            "nnU-Net's raw layout; copy splits_final.json to the dataset's folder in nnUNet_preprocessed before "
            "training, or nnU-Net makes folds of its own, which part persons",
            label=True,
            number=True,
            volumes=True,
        ),
        "webdataset": Form(export_webdataset, "tar files of .npy and .json"),
        "huggingface": Form(export_huggingface, "Parquet files and a card; datasets.load_dataset(FOLDER) reads them"),
        "bids": Form(export_bids, "a BIDS derivative", volumes=True),
        "omezarr": Form(export_omezarr, "an OME-Zarr 0.5 image a sample, with its labels, for viewers"),
    }
)


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    dataset: str
    version: str
    folder: str
    form: str
    samples: int

    def facts(self) -> dict[str, Any]:
        """Return the facts as JSON-able data."""
        return dict(self.__dict__)

    def text(self) -> str:
        """Return the facts as lines for a person."""
        return (
            f"{self.folder}: {counted(self.samples, 'sample')} of {self.dataset}, version {self.version}, "
            f"as {self.form}\n"
            f"  {FORMS[self.form].about}"
        )


@dataclass(frozen=True)
class Wanted:
    """Which samples to export.

    Parameters
    ----------
    split
        Those of a split; None for all.
    where
        Those whose row matches an expression; None for all.
    missing
        ``fill`` also takes samples that lack an optional image; ``refuse`` stops at one.
    """

    split: str | None = None
    where: str | None = None
    missing: str = "refuse"


def export(
    url: str,
    folder: str,
    *,
    form: str,
    wanted: Wanted = Wanted(),
    label: str | None = None,
    number: int = 1,
    track: Track = silently,
) -> Exported:
    """Export a dataset to a local folder. The same export started again continues where it stopped.

    Parameters
    ----------
    form
        One of ``FORMS``.
    wanted
        Which samples.
    label
        Name of the field of labels, for forms that have one.
    number
        nnU-Net's number of the dataset.

    Raises
    ------
    SpecError
        If the form, split, expression or label does not exist, patches are to become whole volumes, or the folder
        holds something else.
    """
    chosen = FORMS.get(form)
    if chosen is None:
        raise SpecError(f"--form: found {form!r}, expected one of {', '.join(FORMS)}")
    if "://" in folder:
        raise SpecError(f"--to: found {folder}, expected a local folder; copy it to where it is needed afterwards")
    dataset = open_dataset(url, split=wanted.split)
    samples = dataset.where(wanted.where) if wanted.where is not None else dataset
    if not len(samples):
        raise SpecError("--where: found no sample that it matches, expected some")
    if chosen.volumes and samples.layout(samples.image_fields[0]).shape is not None:
        raise SpecError(
            f"--form: found {form} for a dataset of patches, expected whole volumes; build with samples: "
            "{kind: volumes}, or choose nifti, webdataset or huggingface"
        )
    options: dict[str, Any] = {"label": _label(samples, label)} if chosen.label else {}
    if chosen.number:
        options["number"] = number
    missing = _missing(wanted.missing)
    check_present(samples, missing)
    target = _begin(samples, Path(folder), form, options)
    chosen.write(samples, target, **options, missing=missing, track=track)
    manifest = samples.manifest
    return Exported(manifest.name, manifest.version, folder, form, len(samples))


def _missing(text: str) -> Missing:
    if text == "fill":
        return "fill"
    if text == "refuse":
        return "refuse"
    raise SpecError(f"--missing: found {text!r}, expected refuse or fill")


def _begin(samples: Dataset, folder: Path, form: str, options: Mapping[str, Any]) -> ExportFolder:
    manifest = samples.manifest
    own = {"dataset": manifest.name, "version": manifest.version, "selection": samples.selection}
    identity = {**own, "form": form, "fields": list(samples.fields), "options": dict(options)}
    if "number" not in options:
        return ExportFolder(folder).begin(identity)
    # nnU-Net keeps several datasets in one folder
    ExportFolder(folder / f"Dataset{options['number']:03d}_{manifest.name}").begin(identity)
    return ExportFolder(folder, continues=True)


def _label(samples: Dataset, label: str | None) -> str:
    """Return the field of labels to export: the named one, else the only one. Raises SpecError."""
    labels = [name for name in samples.fields if name not in samples.image_fields]
    if label is None and len(labels) == 1:
        return labels[0]
    if not labels:
        raise SpecError("--form: found a dataset without labels, expected one with masks; choose nifti or webdataset")
    if label not in labels:
        found = "no name" if label is None else repr(label)
        raise SpecError(f"--label: found {found}, expected one of {', '.join(labels)}")
    return label

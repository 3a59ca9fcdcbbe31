"""Export a published dataset, or a part of it, to the files of other tools (``builder export``)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from builder.errors import SpecError, counted
from builder.library.inspect import key_of
from builder.reader.dataset import Dataset
from builder.reader.export import (
    export_bids,
    export_datalist,
    export_huggingface,
    export_mds,
    export_nifti,
    export_nnunet,
    export_nnunet_preprocessed,
    export_omezarr,
    export_webdataset,
)
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present
from builder.reader.opening import open_dataset
from builder.reader.uses import BESIDE, OFF, log_use
from builder.storage import open_store

Write = Callable[..., Any]


@dataclass(frozen=True)
class Form:
    """One form of files.

    Parameters
    ----------
    write
        Function that takes a dataset, a folder and ``track``, and the options of the form.
    about
        What somebody gets, for the help and the last line.
    options
        Fields of ``Options`` that the form takes. A ``label`` must be named where the dataset has several.
    volumes
        Whether only whole volumes make sense.
    fills
        Whether samples without an optional image may be exported with its channel as it was filled.
    """

    write: Write
    about: str
    options: tuple[str, ...] = ()
    volumes: bool = False
    fills: bool = True


def _export_dicomseg(dataset: Dataset, folder: ExportFolder, **options: Any) -> Any:
    from builder.library.dicomseg import export_dicomseg  # late: highdicom takes a second to import

    return export_dicomseg(dataset, folder, **options)


FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "nifti": Form(export_nifti, "a NIfTI file a field and sample; the rows are in samples.json"),
        "monai": Form(export_datalist, "NIfTI files and MONAI's datalist.json", ("label",)),
        "nnunet": Form(
            export_nnunet,
            "nnU-Net's raw layout; copy splits_final.json to the dataset's folder in nnUNet_preprocessed before "
            "training, or nnU-Net makes folds of its own, which part persons",
            ("label", "number"),
            volumes=True,
        ),
        "nnunet_preprocessed": Form(
            export_nnunet_preprocessed,
            "nnU-Net's preprocessed layout with the dataset's own folds, for nnUNet_preprocessed; the plans come from "
            "nnUNetv2_plan_experiment on the form nnunet",
            ("label", "number", "patch"),
            volumes=True,
            fills=False,
        ),
        "webdataset": Form(export_webdataset, "tar files of .npy and .json"),
        "mds": Form(export_mds, "MosaicML's shards; StreamingDataset(local=FOLDER, split=SPLIT) reads them"),
        "huggingface": Form(export_huggingface, "Parquet files and a card; datasets.load_dataset(FOLDER) reads them"),
        "bids": Form(export_bids, "a BIDS derivative", volumes=True),
        "omezarr": Form(export_omezarr, "an OME-Zarr 0.5 image a sample, with its labels, for viewers"),
        "dicomseg": Form(
            _export_dicomseg,
            "a DICOM segmentation a series of the archive; they name patients as the archive does, so keep them there",
            ("label", "archive"),
            fills=False,
        ),
    }
)


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and what it left out, by why."""

    dataset: str
    version: str
    folder: str
    form: str
    samples: int
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return the facts as JSON-able data."""
        return dict(self.__dict__)

    def text(self) -> str:
        """Return the facts as lines for a person."""
        lines = [
            f"{self.folder}: {counted(self.samples, 'sample')} of {self.dataset}, version {self.version}, "
            f"as {self.form}",
            FORMS[self.form].about,
            *self.notes,
        ]
        return "\n  ".join(lines)


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


@dataclass(frozen=True)
class Options:
    """What forms may be told.

    Parameters
    ----------
    label
        Name of the field of labels, for forms that have one.
    number
        nnU-Net's number of the dataset.
    patch
        (slice, row, column) of the patches that nnU-Net will cut.
    archive
        Folder with the DICOM files that the dataset was built from.
    workers
        How many samples are read and written at once.
    """

    label: str | None = None
    number: int = 1
    patch: tuple[int, int, int] = (64, 128, 128)
    archive: str | None = None
    workers: int = 1


def export(
    url: str,
    folder: str,
    *,
    form: str,
    wanted: Wanted = Wanted(),
    options: Options = Options(),
    environment: Mapping[str, str] = MappingProxyType({}),
    track: Track = silently,
) -> Exported:
    """Export a dataset to a local folder. The same export started again continues where it stopped.

    Parameters
    ----------
    form
        One of ``FORMS``.
    wanted
        Which samples.
    options
        What the form is told.
    environment
        Holds the key that the dataset was built with, for forms that go back to the archive.

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
    dataset = open_dataset(url, split=wanted.split, uses=OFF)
    samples = dataset.where(wanted.where) if wanted.where is not None else dataset
    if not len(samples):
        raise SpecError("--where: found no sample that it matches, expected some")
    if chosen.volumes and samples.layout(samples.image_fields[0]).shape is not None:
        raise SpecError(
            f"--form: found {form} for a dataset of patches, expected whole volumes; build with samples: "
            "{kind: volumes}, or choose nifti, webdataset or huggingface"
        )
    told = {name: getattr(options, name) for name in chosen.options}
    if "label" in told:
        told["label"] = _label(samples, options.label)
    missing = _missing(wanted.missing)
    if chosen.fills:
        check_present(samples, missing)
        told["missing"] = missing
    kept = {name: value for name, value in told.items() if name not in ("archive", "missing")}
    if "archive" in told:
        told |= _of_archive(samples, options, environment)
    target = _begin(samples, ExportFolder(Path(folder), workers=options.workers), form, kept)
    fields = [layout.name for layout in samples.manifest.fields]
    use: dict[str, Any] = {"split": wanted.split, "fields": fields, "samples": len(samples), "form": form}
    log_use(open_store(url), samples.manifest, where=BESIDE, **use)
    made = chosen.write(samples, target, **told, track=track)
    manifest = samples.manifest
    return Exported(manifest.name, manifest.version, folder, form, len(samples), getattr(made, "notes", ()))


def _of_archive(samples: Dataset, options: Options, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the archive and the key that finds its series."""
    if options.archive is None:
        raise SpecError(
            "--archive: found nothing, expected the folder of the DICOM files that the dataset was built from"
        )
    key = key_of(samples.manifest, environment)
    if key is None:
        reference = samples.manifest.spec.get("deid", {}).get("patient_key", "")
        raise SpecError(
            f"--form: found no key that the dataset was built with, expected {reference}: it finds the series by name"
        )
    return {"archive": str(Path(options.archive).resolve()), "key": key}


def _missing(text: str) -> Missing:
    if text == "fill":
        return "fill"
    if text == "refuse":
        return "refuse"
    raise SpecError(f"--missing: found {text!r}, expected refuse or fill")


def _begin(samples: Dataset, folder: ExportFolder, form: str, options: Mapping[str, Any]) -> ExportFolder:
    manifest = samples.manifest
    own = {"dataset": manifest.name, "version": manifest.version, "selection": samples.selection}
    identity = {**own, "form": form, "fields": list(samples.fields), "options": dict(options)}
    if "number" not in options:
        return folder.begin(identity)
    # nnU-Net keeps several datasets in one folder
    folder.inside(f"Dataset{options['number']:03d}_{manifest.name}").begin(identity)
    return replace(folder, continues=True)


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

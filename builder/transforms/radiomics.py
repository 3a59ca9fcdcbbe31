"""Features of masks by the standard of the Image Biomarker Standardisation Initiative (IBSI), computed by MIRP.

Source: Zwanenburg et al., Radiology 295 (2020), doi:10.1148/radiol.2020191145; the names are those of MIRP's columns.
"""

import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from builder.errors import CaseError, MissingExtra, Reason
from builder.model.case import Annotation, Case, Mask, ValueDomain, Volume
from builder.protocols import Shape
from builder.transforms.parts import find_mask, move_parts, require_one_grid
from builder.transforms.step import Step

EXTRA: Final = "radiomics"

Whole = Literal["morphology", "local_intensity", "statistics", "intensity_volume_histogram"]
Discrete = Literal["intensity_histogram", "glcm", "glrlm", "glszm", "gldzm", "ngtdm", "ngldm"]
Family = Whole | Discrete

MODALITIES: Final = {ValueDomain.HOUNSFIELD: "ct", ValueDomain.SUV_BW: "pet"}
"""What MIRP calls images whose unit has defaults of its own: the lowest value, and the volume histogram."""

AROUND_MM: Final = 10.0
"""Margin around a mask in which voxels are looked at: the sphere of a local peak has a radius of 6.2 mm."""

DIGITS: Final = 9
"""Significant digits of a feature: those beyond are one machine's."""

ESTIMATED: Final = ("morph_moran_i", "morph_geary_c")
LEAST_ESTIMATED: Final = 1000
"""MIRP computes these two from all pairs of voxels below so many, and estimates them from random ones above."""

_FEATURE = re.compile(r"(?:morph|loc|stat|ih|ivh|cm|rlm|szm|dzm|ngt|ngl)_[A-Za-z0-9_.]{1,56}")


class Radiomics(Step):
    """Measure the masks of a case, on the grid and with the values that the case has at this place of the list.

    Image and masks stay as they are. Each feature of each segment becomes a measure of its mask, and so a column
    ``label.<mask>.<segment>.<feature>``, e.g. ``label.tumor.gtv.morph_volume``. A feature that is not defined (a shape
    of one voxel has no axes) is missing. Where the mask is empty all are, and ``Volume.notes`` says
    ``radiomics_empty/<mask>/<segment>=1``; where some are not defined, ``radiomics_undefined/<mask>/<segment>=n``.

    The features are computed by MIRP (extra ``radiomics``; MIRP is under the EUPL-1.2). It interpolates, filters and
    changes nothing: a ``resample`` before this step decides the grid. Images in HU are rounded to whole numbers. Only
    features with a value in the standard are given, and Moran's I and Geary's C only for masks of fewer than 1000
    voxels, because MIRP estimates them for larger ones.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["radiomics"]
    masks: tuple[str, ...] = ()
    """Names of the masks that are measured; all that lie on the image if empty."""
    families: Annotated[tuple[Family, ...], Field(min_length=1)] = ("morphology", "statistics")
    """Families of features, e.g. ``[morphology, statistics, glcm]``. Histogram and textures need ``bins`` or
    ``bin_width``."""
    bins: Annotated[int, Field(ge=2, le=1024)] | None = None
    """Divide the values inside a mask into this many bins (fixed bin number), for images of arbitrary units."""
    bin_width: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Divide them into bins of this width, e.g. 25 HU (fixed bin size). The first begins at the lower end of
    ``within``, or else at -1000 HU, at 0 SUV, or at the lowest value inside the mask."""
    within: tuple[float, float] | None = None
    """Lowest and highest value of voxels that count, e.g. [-500, 400] HU; voxels beyond keep only their shape."""
    slices: Literal["volume", "each"] = "volume"
    """``each``: compute textures in each slice by itself and average them, for slices that lie far apart."""
    prefix: Annotated[str, Field(pattern=r"^([a-z][a-z0-9]{0,15}_)?$")] = ""
    """Stands before the names of the features, e.g. ``native_``: so one spec can measure before and after a step."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Radiomics":
        stated = [name for name in ("bins", "bin_width") if getattr(self, name) is not None]
        needing = [name for name in self.families if name in get_args(Discrete)]
        if len(stated) > 1:
            raise ValueError("found bins and bin_width, expected one of them")
        if needing and not stated:
            raise ValueError(f"found {needing[0]} without bins, expected bins (a number) or bin_width")
        if stated and not needing:
            expected = ", ".join(get_args(Discrete))
            raise ValueError(f"found {stated[0]} for {', '.join(self.families)}, expected families of bins: {expected}")
        if self.within is not None and not self.within[0] < self.within[1]:
            raise ValueError(f"within: found {list(self.within)}, expected a lower value before a higher one")
        return self

    @property
    def libraries(self) -> tuple[str, ...]:
        """Return MIRP and what it finds surfaces and zones with. Raises MissingExtra."""
        try:
            return tuple(f"{name}=={version(name)}" for name in ("mirp", "scikit-image"))
        except PackageNotFoundError as error:
            raise MissingExtra("mirp", EXTRA) from error

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """Return eight copies of a channel in float64: a mask may fill the image, and matrices hold its neighbours."""
        return 8 * 8 * math.prod(before)

    def __call__(self, case: Case) -> Case:
        """Return the case with measures.

        Raises
        ------
        CaseError
            LABEL_MISSING for a mask that is not there, LABEL_OFF_GRID, SHEARED or INCONSISTENT_PIXELS for an image that
            cannot be measured, LABEL_GEOMETRY where MIRP fails.
        MissingExtra
            If MIRP is not installed.
        """
        chosen = self._chosen(case)
        if not chosen:
            return case
        require_one_grid(case)
        _require_measurable(case.volume)
        notes: list[str] = []

        def measured(annotation: Annotation) -> Annotation:
            if not isinstance(annotation, Mask) or annotation.name not in chosen:
                return annotation
            found = dict(annotation.measures)
            for segment in annotation.segments:
                values, note = self._measure(case.volume, annotation.inside(segment))
                notes.extend(f"{said}/{annotation.name}/{segment.name}={n}" for said, n in note.items())
                taken = {f"{segment.name}/{self.prefix}{name}": value for name, value in values.items()}
                if taken.keys() & found.keys():
                    raise CaseError(
                        Reason.LABEL_AMBIGUOUS,
                        f"radiomics: found measures of {annotation.name}/{segment.name} that another step gave, "
                        "expected a prefix for one of them",
                    )
                found |= taken
            return replace(annotation, measures=found)

        done = move_parts(case, case.volume, measured)
        return replace(done, volume=replace(case.volume, notes=(*case.volume.notes, *notes)))

    def _chosen(self, case: Case) -> set[str]:
        """Return the names of the masks to measure. A label of several masks, ``<label>/<part>``, is named as one."""
        names = {mask.name for mask in case.masks}
        if not self.masks:
            return names
        chosen = {name for name in names if {name, name.partition("/")[0]} & {*self.masks}}
        for wanted in self.masks:
            if not any(wanted in (name, name.partition("/")[0]) for name in chosen):
                find_mask(case, wanted)
        return chosen

    def _measure(self, volume: Volume, inside: NDArray[np.bool_]) -> tuple[dict[str, float], dict[str, int]]:
        """Return the features of one structure by name, and how many are missing and why."""
        box = _box_around(inside, volume.geometry.spacing_mm)
        if box is None:
            return {}, {"radiomics_empty": 1}
        voxels, inside = volume.voxels[0][box].astype(np.float64), inside[box]
        low, high = self.within or (-np.inf, np.inf)
        counting = int(np.count_nonzero(inside & (voxels >= low) & (voxels <= high)))
        if not counting:
            return {}, {"radiomics_out_of_range": 1}
        modality = MODALITIES.get(volume.domain, "generic")
        found = self._computed(voxels, inside, modality=modality, spacing_mm=volume.geometry.spacing_mm)
        left_out = ESTIMATED if counting >= LEAST_ESTIMATED else ()
        features = {n: v for n, v in found.items() if _FEATURE.fullmatch(n) and v is not None and n not in left_out}
        numbers = {named(name): float(value) for name, value in features.items()}
        kept = {name: float(f"{v:.{DIGITS}g}") for name, v in numbers.items() if math.isfinite(v)}
        return kept, {"radiomics_undefined": len(numbers) - len(kept)} if len(kept) < len(numbers) else {}

    def _computed(
        self, voxels: NDArray[np.float64], inside: NDArray[np.bool_], *, modality: str, spacing_mm: tuple[float, ...]
    ) -> Mapping[str, Any]:
        mirp, image_of, mask_of = _mirp()
        grid = {
            "sample_name": "case", "image_modality": modality, "image_spacing": spacing_mm,
            "image_origin": (0.0, 0.0, 0.0), "image_orientation": np.eye(3), "image_dimensions": voxels.shape,
        }  # fmt: skip
        image, mask = image_of(image_data=voxels, **grid), mask_of(roi_name="mask", image_data=inside, **grid)
        try:
            with _silent():
                (table,) = mirp.extract_features(image=image, mask=mask, **self.settings)
        except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
            raise CaseError(
                Reason.LABEL_GEOMETRY,
                f"radiomics: MIRP failed ({type(error).__name__}) on a mask of {int(inside.sum())} voxels, expected "
                "features; choose fewer families, or leave the case out",
            ) from error
        return dict(table.iloc[0])

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of MIRP that these options mean; all others are its defaults."""
        methods: dict[str, Any] = {"base_discretisation_method": "none"}
        if self.bins is not None:
            methods = {"base_discretisation_method": "fixed_bin_number", "base_discretisation_n_bins": self.bins}
        elif self.bin_width is not None:
            methods = {"base_discretisation_method": "fixed_bin_size", "base_discretisation_bin_width": self.bin_width}
        return {
            "base_feature_families": list(self.families),
            "by_slice": self.slices == "each",
            "ibsi_compliant": True,
            **methods,
            **({} if self.within is None else {"resegmentation_intensity_range": list(self.within)}),
        }


def named(feature: str) -> str:
    """Return MIRP's name of a feature as part of a column's name: ``ngl_lde_d1_a0.0_3d`` is ``ngl_lde_d1_a0_3d``."""
    return re.sub(r"\.0(?=_|$)", "", feature).replace(".", "_").lower()


def _require_measurable(volume: Volume) -> None:
    if not volume.geometry.is_orthogonal:
        raise CaseError(
            Reason.SHEARED, "radiomics: found a sheared grid, expected perpendicular axes: add a resample step before"
        )
    if volume.voxels.shape[0] != 1:
        raise CaseError(
            Reason.INCONSISTENT_PIXELS,
            f"radiomics: found an image of {volume.voxels.shape[0]} channels, expected one channel",
        )


def _box_around(inside: NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> tuple[slice, ...] | None:
    """Return the box of a structure and a margin, as far as the image reaches; None for an empty one."""
    box = []
    for axis, spacing in enumerate(spacing_mm):
        hits = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if not hits.size:
            return None
        more = math.ceil(AROUND_MM / spacing) + 1
        box.append(slice(max(0, int(hits[0]) - more), int(hits[-1]) + 1 + more))
    return tuple(box)


def _mirp() -> tuple[Any, Any, Any]:
    """Return MIRP and its classes of an image and a mask, which alone take arrays with a spacing."""
    try:
        import mirp
        from mirp._images.generic_image import GenericImage
        from mirp._masks.base_mask import BaseMask
    except ImportError as error:
        raise MissingExtra("mirp", EXTRA) from error
    return mirp, GenericImage, BaseMask


@contextmanager
def _silent() -> Iterator[None]:
    """Keep MIRP from setting up logging for the whole process, and from warnings that the notes replace."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # logging.basicConfig does nothing where there is a handler
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
